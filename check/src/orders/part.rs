//! The steps that are put into other orders: where they stand in a protocol, and their orders.

use serde_json::Value;

use super::OrdersError;

/// The words that stop the guest, and those that end a protocol.
const STOPS: [&str; 2] = ["pause-vcpus", "wait-vcpus-stopped"];
const ENDS: [&str; 2] = ["finish", "switch-over"];
/// The words that take all of memory as to be copied: a round begins behind them.
const BEGINNINGS: [&str; 3] = ["copy-all", "take-all", "enable-logging"];
/// The keys of a table whose list of steps is a round.
const ROUNDS: [(&str, &str); 3] = [
    ("repeat", "steps"),
    ("until_clean", "until_clean"),
    ("any_number", "any_number"),
];

/// Which steps of a protocol are put into other orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those between the last stop of the vCPUs and the end.
    Final,
    /// Those of the pre-copy round of that number, from 1 on: a `repeat`, `until_clean` or `any_number` before the last stop; where
    /// there is none, what stands between the full copy and that stop.
    Round(usize),
}

/// Some steps of a protocol, as they are written.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    source: &'a Value,
    /// The way to their list.
    pointer: String,
    /// Where in the list they begin.
    first: usize,
    pub(super) items: Vec<Value>,
}

fn word(item: &Value) -> Option<&str> {
    item.as_str().or_else(|| item.get("step")?.as_str())
}

fn is(item: &Value, words: &[&str]) -> bool {
    word(item).is_some_and(|word| words.contains(&word))
}

impl<'a> Steps<'a> {
    /// Finds the steps of a part.
    ///
    /// # Errors
    /// A protocol that has no such part, or an empty one.
    pub(super) fn of(source: &'a Value, part: Part) -> Result<Self, OrdersError> {
        const LIST: &str = "/protocol/steps";
        let steps = source
            .pointer(LIST)
            .and_then(Value::as_array)
            .ok_or(OrdersError::NoSuchSteps("the protocol has no list `steps`"))?;
        let stop = steps
            .iter()
            .rposition(|item| is(item, &STOPS))
            .ok_or(OrdersError::NoSuchSteps("nothing stops the vCPUs"))?;
        let (pointer, first, items) = match part {
            Part::Final => {
                let end = steps
                    .iter()
                    .rposition(|item| is(item, &ENDS))
                    .filter(|end| *end > stop)
                    .ok_or(OrdersError::NoSuchSteps(
                        "nothing ends the protocol after the stop",
                    ))?;
                (LIST.to_owned(), stop + 1, &steps[stop + 1..end])
            }
            Part::Round(number) => round(LIST, &steps[..stop], number)?,
        };
        if items.is_empty() {
            return Err(OrdersError::NoSuchSteps(match part {
                Part::Final => "there is no step between the stop and the end",
                Part::Round(_) => "there is no step in that round",
            }));
        }
        Ok(Self {
            source,
            pointer,
            first,
            items: items.to_vec(),
        })
    }

    /// The scenario's text with the steps in another order.
    pub(super) fn reordered(&self, order: &[usize]) -> Value {
        let mut source = self.source.clone();
        let list = source
            .pointer_mut(&self.pointer)
            .and_then(Value::as_array_mut);
        for (place, slot) in list.into_iter().flatten().skip(self.first).enumerate() {
            if let Some(item) = order.get(place) {
                *slot = self.items[*item].clone();
            }
        }
        source
    }
}

/// The round of that number among the steps before the stop.
fn round<'a>(
    list: &str,
    before: &'a [Value],
    number: usize,
) -> Result<(String, usize, &'a [Value]), OrdersError> {
    let mut rounds = before.iter().enumerate().filter_map(|(at, item)| {
        let (_, key) = ROUNDS.iter().find(|(mark, _)| item.get(mark).is_some())?;
        let steps = item.get(key)?.as_array()?;
        Some((format!("{list}/{at}/{key}"), 0, steps.as_slice()))
    });
    let wanted = number
        .checked_sub(1)
        .ok_or(OrdersError::NoSuchSteps("rounds are counted from 1 on"))?;
    if let Some(found) = rounds.nth(wanted) {
        return Ok(found);
    }
    let any = before
        .iter()
        .any(|item| ROUNDS.iter().any(|(mark, _)| item.get(mark).is_some()));
    if any || wanted > 0 {
        return Err(OrdersError::NoSuchSteps(
            "there are fewer rounds before the stop",
        ));
    }
    let first = before
        .iter()
        .rposition(|item| is(item, &BEGINNINGS))
        .map_or(0, |at| at + 1);
    Ok((list.to_owned(), first, &before[first..]))
}

/// A step in words: its name, and its arguments where it has some.
fn label(item: &Value) -> String {
    match (word(item), item.as_object()) {
        (Some(name), Some(map)) => {
            let arguments: Vec<String> = map
                .iter()
                .filter(|(key, _)| *key != "step")
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("{name}({})", arguments.join(", "))
        }
        (Some(name), None) => name.to_owned(),
        (None, _) => item.to_string(),
    }
}

/// The steps in words; equal ones are numbered.
pub(super) fn labels(items: &[Value]) -> Vec<String> {
    let occurrence = |at: usize| {
        items[..at]
            .iter()
            .filter(|item| **item == items[at])
            .count()
            + 1
    };
    let total = |at: usize| items.iter().filter(|item| **item == items[at]).count();
    (0..items.len())
        .map(|at| match total(at) {
            1 => label(&items[at]),
            _ => format!("{}#{}", label(&items[at]), occurrence(at)),
        })
        .collect()
}

/// The number of distinct orders.
pub(super) fn count(items: &[Value]) -> u64 {
    let mut orders = 1_u64;
    for at in 0..items.len() {
        let equal = items[..=at]
            .iter()
            .filter(|item| **item == items[at])
            .count() as u64;
        // A product of whole binomials, so that the division is exact.
        orders = orders.saturating_mul(at as u64 + 1) / equal;
    }
    orders
}

/// Every distinct order, by number; of equal steps the first comes first.
pub(super) fn every_order(items: &[Value]) -> Vec<Vec<usize>> {
    fn extend(items: &[Value], order: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if order.len() == items.len() {
            all.push(order.clone());
            return;
        }
        for next in 0..items.len() {
            let earlier_equal =
                (0..next).any(|other| items[other] == items[next] && !order.contains(&other));
            if !order.contains(&next) && !earlier_equal {
                order.push(next);
                extend(items, order, all);
                order.pop();
            }
        }
    }
    let mut all = Vec::new();
    extend(items, &mut Vec::new(), &mut all);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_steps_are_not_told_apart() {
        let items: Vec<Value> = ["a", "b", "a"].map(Value::from).to_vec();
        assert_eq!(count(&items), 3);
        assert_eq!(every_order(&items), [[0, 1, 2], [0, 2, 1], [1, 0, 2]]);
        assert_eq!(labels(&items), ["a#1", "b", "a#2"]);
    }

    #[test]
    fn as_many_orders_are_made_as_are_counted() {
        let items: Vec<Value> = ["a", "b", "c", "b", "a", "b"].map(Value::from).to_vec();
        assert_eq!(every_order(&items).len() as u64, count(&items));
        assert_eq!(count(&items), 60);
    }

    fn protocol(steps: Value) -> Value {
        json!({ "protocol": { "steps": steps } })
    }

    fn found(source: &Value, part: Part) -> Result<Vec<Value>, OrdersError> {
        Steps::of(source, part).map(|steps| steps.items)
    }

    #[test]
    fn a_round_is_a_repetition_before_the_last_stop() {
        let source = protocol(json!([
            "copy-all",
            { "repeat": 2, "steps": ["harvest-rings", "copy"] },
            { "until_clean": ["get-dirty-log", { "step": "copy", "pages": [1] }] },
            "pause-vcpus", "copy", "finish"
        ]));
        assert_eq!(
            found(&source, Part::Round(1)),
            Ok(vec!["harvest-rings".into(), "copy".into()])
        );
        let second = Steps::of(&source, Part::Round(2)).expect("there are two");
        assert_eq!(second.items[1]["pages"], json!([1]));
        let other = second.reordered(&[1, 0]);
        assert_eq!(
            other.pointer("/protocol/steps/2/until_clean/1"),
            Some(&"get-dirty-log".into())
        );
        assert_eq!(
            other.pointer("/protocol/steps/1"),
            source.pointer("/protocol/steps/1")
        );
        assert!(matches!(
            found(&source, Part::Round(3)),
            Err(OrdersError::NoSuchSteps(_))
        ));
        assert!(matches!(
            found(&source, Part::Round(0)),
            Err(OrdersError::NoSuchSteps(_))
        ));
        assert_eq!(found(&source, Part::Final), Ok(vec!["copy".into()]));
    }

    #[test]
    fn without_a_repetition_the_round_is_what_stands_between_the_full_copy_and_the_stop() {
        let source = protocol(json!([
            "enable-logging",
            "copy-all",
            "harvest-rings",
            "copy",
            "reset-rings",
            "pause-vcpus",
            "finish"
        ]));
        let round = Steps::of(&source, Part::Round(1)).expect("there is one");
        assert_eq!(round.items, ["harvest-rings", "copy", "reset-rings"]);
        let other = round.reordered(&[0, 2, 1]);
        let steps = [
            "enable-logging",
            "copy-all",
            "harvest-rings",
            "reset-rings",
            "copy",
            "pause-vcpus",
            "finish",
        ];
        assert_eq!(other["protocol"]["steps"], json!(steps));
        assert!(matches!(
            found(&source, Part::Final),
            Err(OrdersError::NoSuchSteps(_))
        ));
        let nothing = protocol(json!(["copy-all", "pause-vcpus", "copy", "finish"]));
        assert!(matches!(
            found(&nothing, Part::Round(1)),
            Err(OrdersError::NoSuchSteps(_))
        ));
    }
}
