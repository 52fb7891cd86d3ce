//! Each step that the rules let be taken alone, in every state that the plainest explorer comes to, beside every step that another actor has
//! there: that it is its actor's only one and stays so, that the two commute, that it may still be taken alone after the other's, and that
//! it hides no claim that the other breaks. By induction over the states, which are all seen, the step is a persistent set.
//!
//! Equal are two states that a search takes for one: those with the same bits when packed. What some rules argue instead is in [`argues`].

use std::collections::{BTreeMap, HashSet, VecDeque};

use dirtysim::scenario::Scenario;
use dirtysim::search::Rule;
use dirtysim_model::machine::Machine;
use dirtysim_model::oracle::{self, Invariants};
use dirtysim_model::reduce::independence::Rules;
use dirtysim_model::reduce::pack::Packing;
use dirtysim_model::state::State;
use dirtysim_model::state::layout::{Layout, Small};
use dirtysim_model::transition::{
    Actor, Choice, Effect, Step, apply, describe, for_each_choice, for_each_step,
};

use crate::naive::Explored;

/// What a rule says of its step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Argument {
    /// It commutes with every step of others that can come before it.
    Commutes,
    /// The actor that took it can do whatever it could have done without: where the two orders differ, it comes by itself to the state that the
    /// other order leads to, at once or after more steps of others, which are possible in both and break the same claims.
    ComesBack,
    /// It is worse early than late: with it first the same pages are stale and perhaps more, and nothing else differs. No step reads what is
    /// stale, and whatever claim a state breaks is broken where more is.
    WorseEarly,
    /// The step before it moves to the right of every step that others can take in between, so that nobody need come between the two.
    WithTheOneBefore,
}

/// Which of these a rule argues. A rule that is not said to argue less has to commute.
fn argues(rule: Rule) -> Argument {
    match rule {
        Rule::Run | Rule::EnterGuest => Argument::ComesBack,
        Rule::CopyPage => Argument::WorseEarly,
        Rule::FaultInLock => Argument::WithTheOneBefore,
        Rule::PushPayload
        | Rule::PushIndex
        | Rule::PushFlags
        | Rule::MarkBit
        | Rule::PushRequest
        | Rule::FaultResolve
        | Rule::FaultLock
        | Rule::FaultUnlock
        | Rule::CheckSoftFull
        | Rule::LeaveGuest
        | Rule::ReturnToUser
        | Rule::HarvestEnter
        | Rule::HarvestEntry
        | Rule::ResetEntry
        | Rule::ResetIndex
        | Rule::CopyBegin
        | Rule::CopyEnd
        | Rule::GetWord => Argument::Commutes,
    }
}

/// In how many states each rule's step was looked at.
pub(crate) type Looks = BTreeMap<Rule, u64>;

/// What is wrong with a step that was to be taken alone.
pub(crate) struct Wrong {
    pub(crate) rule: Rule,
    pub(crate) why: String,
}

/// States that an actor may come to by itself before it is where it was.
const BY_ITSELF: usize = 64;

pub(crate) struct Alone<'a> {
    machine: &'a Machine,
    rules: Rules,
    packing: Packing,
    /// What was looked at already: a step alone in a state, or a state that has to do for another.
    known: HashSet<(Vec<u64>, Vec<u64>)>,
    /// States from which steps that are taken alone come to an end.
    end: HashSet<Vec<u64>>,
    looks: Looks,
}

/// A step taken: where it leads, and the claims that it breaks.
struct Taken<L: Layout> {
    state: State<L>,
    broken: Invariants,
}

impl<'a> Alone<'a> {
    pub(crate) fn new<L: Layout>(scenario: &'a Scenario, rules: Rules) -> Self {
        let machine = &scenario.machine;
        let start = scenario.start::<L>().expect("it was explored");
        Self {
            machine,
            rules,
            packing: Packing::new(machine, &start),
            known: HashSet::new(),
            end: HashSet::new(),
            looks: Looks::new(),
        }
    }

    /// In how many states each rule's step was looked at.
    pub(crate) fn looks(self) -> Looks {
        self.looks
    }

    /// Looks at every step of a state that may be taken alone.
    ///
    /// # Errors
    /// What is wrong with one.
    pub(crate) fn look<L: Layout>(&mut self, state: &State<L>) -> Result<(), Wrong> {
        self.ends(state)?;
        for actor in actors(&self.steps(state)) {
            if let Some((rule, choice)) = self.rules.local_rule(self.machine, state, actor) {
                let step = Step { actor, choice };
                *self.looks.entry(rule).or_default() += 1;
                self.step(state, rule, step)
                    .map_err(|why| Wrong { rule, why })?;
            }
            self.lock(state, actor)?;
        }
        Ok(())
    }

    /// Steps that are taken alone, one after the other, come to an end.
    fn ends<L: Layout>(&mut self, state: &State<L>) -> Result<(), Wrong> {
        let mut state = state.clone();
        let mut way = HashSet::new();
        loop {
            let packed = self.packed(&state);
            if self.end.contains(&packed) {
                break;
            }
            let Some(step) = self.rules.local_step(self.machine, &state) else {
                way.insert(packed);
                break;
            };
            let rule = self.rules.local_rule(self.machine, &state, step.actor);
            let Some((rule, _)) = rule.filter(|(_, choice)| *choice == step.choice) else {
                panic!("a step without a rule: {step:?}");
            };
            if !way.insert(packed) {
                let why = "steps taken alone go round".to_owned();
                return Err(Wrong { rule, why });
            }
            state = self.take(&state, step).state;
        }
        self.end.extend(way);
        Ok(())
    }

    fn step<L: Layout>(&mut self, state: &State<L>, rule: Rule, step: Step) -> Result<(), String> {
        let name = describe(self.machine, state, step).name();
        let own = self.choices(state, step.actor);
        if !own.contains(&step.choice) {
            return Err(format!("{name} is not possible"));
        }
        let argument = argues(rule);
        if own.len() != 1 && argument != Argument::WorseEarly {
            return Err(format!("{name} is one of {own:?}"));
        }
        match argument {
            Argument::WithTheOneBefore => Ok(()),
            Argument::ComesBack => {
                let after = self.take(state, step).state;
                self.comes_back(after, state.clone(), step.actor)
            }
            Argument::Commutes | Argument::WorseEarly => {
                self.commutes(state.clone(), step, argument)
            }
        }
        .map_err(|why| format!("{name}{why}"))
    }

    /// A step beside every other, there and in whatever state these lead to in which no rule lets it be taken alone any more: those in which
    /// one does are looked at for themselves.
    fn commutes<L: Layout>(
        &mut self,
        state: State<L>,
        step: Step,
        argument: Argument,
    ) -> Result<(), String> {
        let mut open = vec![state];
        while let Some(state) = open.pop() {
            let first = self.take(&state, step);
            if !self
                .known
                .insert((self.packed(&state), self.packed(&first.state)))
            {
                continue;
            }
            let before = oracle::check(self.machine, &state, Effect::None);
            for other in self.steps(&state) {
                if other == step {
                    continue;
                }
                let after = self.beside(&state, argument, step, other, &first, before);
                let after = after.map_err(|why| {
                    format!(
                        " beside {}: {why}",
                        describe(self.machine, &state, other).name()
                    )
                })?;
                open.extend(after.filter(|after| {
                    let rule = self.rules.local_choice(self.machine, after, step.actor);
                    rule != Some(step.choice)
                }));
            }
        }
        Ok(())
    }

    /// A step with where it leads, beside another; where the other leads, if anything can follow.
    fn beside<L: Layout>(
        &self,
        state: &State<L>,
        argument: Argument,
        step: Step,
        other: Step,
        first: &Taken<L>,
        before: Invariants,
    ) -> Result<Option<State<L>>, String> {
        if !self
            .choices(&first.state, other.actor)
            .contains(&other.choice)
        {
            return Err("the other is not possible after it".to_owned());
        }
        let late = self.take(state, other);
        let both = self.take(&first.state, other);
        let mut seen = before;
        seen.union(first.broken);
        seen.union(both.broken);
        hides(seen, late.broken)?;
        if is_over(&late.state) {
            return Ok(None);
        }
        let after = self.choices(&late.state, step.actor);
        if !after.contains(&step.choice) {
            return Err("the other takes it away".to_owned());
        }
        if after.len() != 1 && argument != Argument::WorseEarly {
            return Err(format!("after the other, it is one of {after:?}"));
        }
        let second = self.take(&late.state, step);
        hides(seen, second.broken)?;
        let is_worse =
            argument == Argument::WorseEarly && self.is_worse(&both.state, &second.state);
        if !is_worse && !self.are_equal(&both.state, &second.state) {
            return Err("the order of the two matters".to_owned());
        }
        Ok(Some(late.state))
    }

    /// A state that has to do for another: the actor comes to it by itself, or it is one step ahead of it, or what others do there
    /// they can do here, with the same claims broken, and where they come to will do likewise.
    fn comes_back<L: Layout>(
        &mut self,
        here: State<L>,
        there: State<L>,
        actor: Actor,
    ) -> Result<(), String> {
        let mut open = vec![(here, there)];
        while let Some((here, there)) = open.pop() {
            let (packed, target) = (self.packed(&here), self.packed(&there));
            if packed == target || is_over(&there) || !self.known.insert((packed.clone(), target)) {
                continue;
            }
            let own = self.choices(&there, actor);
            let is_ahead = own.len() == 1 && {
                let choice = own[0];
                let next = self.take(&there, Step { actor, choice }).state;
                self.packed(&next) == packed
            };
            if !is_ahead {
                if self.comes_to(&here, actor, &there) {
                    continue;
                }
                for choice in own {
                    let next = self.take(&there, Step { actor, choice }).state;
                    if !self.comes_to(&here, actor, &next) {
                        return Err(format!(" does not come to what {choice:?} leads to"));
                    }
                }
            }
            let mut seen = oracle::check(self.machine, &here, Effect::None);
            for other in self.steps(&there) {
                if other.actor == actor {
                    continue;
                }
                let name = describe(self.machine, &there, other).name();
                if !self.choices(&here, other.actor).contains(&other.choice) {
                    return Err(format!(" beside {name}: it is not possible behind it"));
                }
                let (here, there) = (self.take(&here, other), self.take(&there, other));
                seen.union(here.broken);
                hides(seen, there.broken).map_err(|why| format!(" beside {name}: {why}"))?;
                open.push((here.state, there.state));
            }
        }
        Ok(())
    }

    /// What the step after it argues of an actor's lock of mmu_lock: it moves to the right of every step that others can take after it.
    fn lock<L: Layout>(&mut self, state: &State<L>, actor: Actor) -> Result<(), Wrong> {
        let own = self.choices(state, actor);
        let [choice] = own[..] else {
            return Ok(());
        };
        let lock = Step { actor, choice };
        let name = describe(self.machine, state, lock).name();
        if name != "fault-lock" {
            return Ok(());
        }
        let locked = self.take(state, lock);
        let rule = self.rules.local_rule(self.machine, &locked.state, actor);
        let Some((rule, _)) = rule.filter(|(rule, _)| argues(*rule) == Argument::WithTheOneBefore)
        else {
            return Ok(());
        };
        for other in self.steps(&locked.state) {
            if other.actor == actor {
                continue;
            }
            self.moves_right(state, lock, &locked, other)
                .map_err(|why| {
                    let other = describe(self.machine, &locked.state, other).name();
                    let why = format!("{name} before {other}: {why}");
                    Wrong { rule, why }
                })?;
        }
        Ok(())
    }

    fn moves_right<L: Layout>(
        &self,
        state: &State<L>,
        step: Step,
        first: &Taken<L>,
        other: Step,
    ) -> Result<(), String> {
        if !self.choices(state, other.actor).contains(&other.choice) {
            return Err("the other was not possible before it".to_owned());
        }
        let before = self.take(state, other);
        let behind = self.take(&first.state, other);
        if is_over(&before.state) {
            return hides(before.broken, behind.broken);
        }
        if !self
            .choices(&before.state, step.actor)
            .contains(&step.choice)
        {
            return Err("the other takes it away".to_owned());
        }
        let after = self.take(&before.state, step);
        if !self.are_equal(&behind.state, &after.state) {
            return Err("the order of the two matters".to_owned());
        }
        let mut seen = before.broken;
        seen.union(after.broken);
        hides(seen, behind.broken)
    }

    fn steps<L: Layout>(&self, state: &State<L>) -> Vec<Step> {
        let mut steps = Vec::new();
        for_each_step(self.machine, state, |step| steps.push(step));
        steps
    }

    fn choices<L: Layout>(&self, state: &State<L>, actor: Actor) -> Vec<Choice> {
        let mut choices = Vec::new();
        for_each_choice(self.machine, state, actor, |choice| choices.push(choice));
        choices
    }

    fn take<L: Layout>(&self, state: &State<L>, step: Step) -> Taken<L> {
        let mut state = state.clone();
        let effect = apply(self.machine, &mut state, step);
        let broken = oracle::check(self.machine, &state, effect);
        Taken { state, broken }
    }

    fn packed<L: Layout>(&self, state: &State<L>) -> Vec<u64> {
        let mut words = vec![0; self.packing.words()];
        self.packing
            .pack(self.machine, &mut state.clone(), &mut words);
        words
    }

    fn are_equal<L: Layout>(&self, one: &State<L>, other: &State<L>) -> bool {
        one == other || self.packed(one) == self.packed(other)
    }

    /// Whether a state is another one, but for more that is stale.
    fn is_worse<L: Layout>(&self, worse: &State<L>, better: &State<L>) -> bool {
        let mut more = better.clone();
        more.stale.union(&worse.stale);
        self.are_equal(worse, &more)
    }

    /// Whether the actor alone comes from one state to another.
    fn comes_to<L: Layout>(&self, from: &State<L>, actor: Actor, to: &State<L>) -> bool {
        let target = self.packed(to);
        let mut known = HashSet::from([self.packed(from)]);
        let mut open = VecDeque::from([from.clone()]);
        while let Some(state) = open.pop_front()
            && !known.contains(&target)
        {
            for choice in self.choices(&state, actor) {
                let next = self.take(&state, Step { actor, choice }).state;
                if known.len() < BY_ITSELF && known.insert(self.packed(&next)) {
                    open.push_back(next);
                }
            }
        }
        known.contains(&target)
    }
}

/// Who has steps.
fn actors(steps: &[Step]) -> Vec<Actor> {
    let mut actors: Vec<Actor> = steps.iter().map(|step| step.actor).collect();
    actors.dedup();
    actors
}

fn is_over<L: Layout>(state: &State<L>) -> bool {
    state.finished || state.crashed
}

/// Whether all that is broken is seen to be broken.
fn hides(seen: Invariants, broken: Invariants) -> Result<(), String> {
    let hidden = broken.without(seen);
    if hidden.is_empty() {
        Ok(())
    } else {
        Err(format!("it hides {hidden:?}"))
    }
}

/// Looks at every step that may be taken alone in the states that were explored; in how many at each rule's.
///
/// # Errors
/// What is wrong with one.
pub(crate) fn look_at_all(
    scenario: &Scenario,
    explored: &Explored<Small>,
) -> Result<Looks, String> {
    let mut alone = Alone::new::<Small>(scenario, Rules::of(&scenario.machine, |_| true));
    for state in &explored.states {
        alone.look(state).map_err(|Wrong { rule, why }| {
            format!("a step taken alone by {}: {why}", rule.name())
        })?;
    }
    Ok(alone.looks())
}
