//! Pre-copy over time: rounds of copying while the guest writes, then the stop.
//!
//! One mechanism for every tracking mode and every calibration entry. A round collects what was recorded, sends it and
//! takes as long as that takes; meanwhile each working set is written at its rate. What differs is *when a page is
//! armed again*. GET and RESET arm a page before the round sends anything, so whatever is stored during the whole round
//! is found again. CLEAR just before sending lets the stores up to that moment ride along with the copy, so a page in
//! hand is found again only for the stores after it. Writes outside a vCPU go to the bitmap; beside rings it is
//! collected once, after the stop, and all of its pages are sent in the downtime.
//!
//! Not modelled: compression, zero pages, huge-page splitting, auto-converge throttling, post-copy, latency of the link.

use super::constants::RING_RESERVED_ENTRIES;
use super::error::CostError;
use super::fixed::mul_div;
use super::inputs::{Inputs, RatePolicy, Rearm, Tracking};
use super::steps::{
    Downtime, WIRE_PAGE_BYTES, add, clear_ns, enable_ns, final_step, get_ns, ps, send_ns,
};
use super::units::{PAGE_BYTES, SECOND};
use super::workload::Writer;

/// One round of pre-copy. Times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Pages sent.
    pub pages: u64,
    /// The rate they were sent at, in bytes per second.
    pub rate: u64,
    /// Enabling logging (the first round), or GET, or harvesting and RESET.
    pub collect_ns: u64,
    /// CLEAR, between the copies.
    pub clear_ns: u64,
    /// Sending.
    pub send_ns: u64,
    /// Pages that the next collection will find.
    pub dirtied: u64,
    /// How long those would take at this round's rate: what a VMM that stopped now would expect to copy.
    pub expected_copy_ns: u64,
    /// vCPU time lost to faults and to full rings.
    pub guest_stall_ns: u64,
}

impl Round {
    /// The round's length.
    #[must_use]
    pub fn ns(&self) -> u64 {
        self.collect_ns + self.clear_ns + self.send_ns
    }
}

/// Why pre-copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// What was left fitted the downtime limit.
    DowntimeLimit,
    /// Few bytes were left.
    FewBytes,
    /// The adaptive rate would have exceeded its cap.
    RateCap,
    /// A round left about as much as it had sent.
    NoProgress,
    /// The rounds were used up: pre-copy did not converge.
    Rounds,
}

impl StopReason {
    /// The name used in text and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DowntimeLimit => "downtime-limit",
            Self::FewBytes => "few-bytes",
            Self::RateCap => "rate-cap",
            Self::NoProgress => "no-progress",
            Self::Rounds => "rounds",
        }
    }
}

/// A simulated migration. Times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rounds, in order; never empty.
    pub rounds: Vec<Round>,
    /// Why pre-copy ended.
    pub stop: StopReason,
    /// The downtime's parts.
    pub downtime: Downtime,
    /// The downtime.
    pub downtime_ns: u64,
    /// From enabling logging to the handover.
    pub total_ns: u64,
    /// Bytes on the wire: pages with their headers.
    pub bytes_sent: u64,
    /// Pages copied in the downtime that vCPUs dirtied (in bitmap mode: that anybody dirtied before the save).
    pub vcpu_pages_left: u64,
    /// Pages copied in the downtime that only the final bitmap holds.
    pub bitmap_pages_left: u64,
    /// vCPU time lost to faults and to full rings, before the stop.
    pub guest_stall_ns: u64,
}

/// Simulates one migration.
///
/// # Errors
/// What [`Inputs::check`] refuses, and [`CostError::TimeOverflow`].
pub fn simulate(inputs: &Inputs) -> Result<Outcome, CostError> {
    inputs.check()?;
    Run::new(inputs).finish()
}

/// A migration under way.
struct Run<'a> {
    inputs: &'a Inputs,
    /// Pages of each working set that the coming round will send.
    in_hand: Vec<u64>,
    rounds: Vec<Round>,
    /// Since logging was enabled.
    elapsed_ns: u64,
}

impl<'a> Run<'a> {
    fn new(inputs: &'a Inputs) -> Self {
        let in_hand = inputs
            .working_sets
            .iter()
            .map(super::workload::WorkingSet::pages)
            .collect();
        Self {
            inputs,
            in_hand,
            rounds: Vec::new(),
            elapsed_ns: 0,
        }
    }

    fn finish(mut self) -> Result<Outcome, CostError> {
        let mut rate = match self.inputs.rate {
            RatePolicy::Full => self.inputs.full_rate(),
            RatePolicy::Adaptive { floor, .. } => floor.min(self.inputs.full_rate()),
        };
        let stop = loop {
            let round = self.round(rate)?;
            match self.next(&round)? {
                Next::Round(next) => rate = next,
                Next::Stop(reason) => break reason,
            }
        };
        let left = self.inputs.device_save_pages + self.bitmap_only_pages();
        let vcpu_left = self.rounds.last().map_or(0, |round| round.dirtied);
        let downtime = final_step(self.inputs, vcpu_left, left)?;
        let downtime_ns = downtime.total_ns()?;
        let pages = self.rounds.iter().map(|round| round.pages).sum::<u64>() + vcpu_left + left;
        let guest_stall_ns = self
            .rounds
            .iter()
            .try_fold(0, |sum, round| add(sum, round.guest_stall_ns))?;
        Ok(Outcome {
            stop,
            downtime,
            downtime_ns,
            total_ns: add(self.elapsed_ns, downtime_ns)?,
            // At most 10^4 rounds of 2^38 pages of 2^12 and some bytes: above 2^63 only in principle.
            bytes_sent: pages
                .checked_mul(WIRE_PAGE_BYTES)
                .ok_or(CostError::TimeOverflow)?,
            vcpu_pages_left: vcpu_left,
            bitmap_pages_left: left,
            guest_stall_ns,
            rounds: self.rounds,
        })
    }

    /// Sends what is in hand and lets the guest write meanwhile.
    fn round(&mut self, rate: u64) -> Result<Round, CostError> {
        let inputs = self.inputs;
        let found = self.rounds.last().map(|round| round.dirtied);
        let pages = found.unwrap_or(inputs.memory_pages());
        let collect_ns = match (found, inputs.tracking) {
            (None, _) => enable_ns(inputs)?,
            (Some(dirty), Tracking::Bitmap(_)) => get_ns(inputs, dirty)?,
            (Some(dirty), _) => {
                let each = inputs.costs.harvest_ps_per_entry + inputs.costs.rearm_ps_per_page;
                add(inputs.costs.ioctl_ns, ps(dirty, each)?)?
            }
        };
        let lazy = match inputs.tracking {
            Tracking::Bitmap(Rearm::ClearInitiallySet) => true,
            Tracking::Bitmap(Rearm::Clear) => found.is_some(),
            _ => false,
        };
        let clear_ns = if lazy { clear_ns(inputs, pages)? } else { 0 };
        let send_ns = send_ns(pages, rate)?;
        let length = add(add(collect_ns, clear_ns)?, send_ns)?;
        self.elapsed_ns = add(self.elapsed_ns, length)?;
        let dirtied = self.write(length, lazy);
        let round = Round {
            pages,
            rate,
            collect_ns,
            clear_ns,
            send_ns,
            dirtied,
            expected_copy_ns: super::steps::send_ns(dirtied, rate)?,
            guest_stall_ns: self.stall_ns(dirtied)?,
        };
        self.rounds.push(round);
        Ok(round)
    }

    /// The guest writes for a while; what the next collection finds.
    fn write(&mut self, window_ns: u64, lazy: bool) -> u64 {
        let inputs = self.inputs;
        // No vCPU takes more than one fault at a time.
        let fault_ps = inputs.costs.fault_ps_per_page.max(1);
        let mut faults =
            mul_div(window_ns, inputs.vcpus.saturating_mul(1000), fault_ps).unwrap_or(u64::MAX);
        let mut sum = 0;
        for (set, in_hand) in inputs.working_sets.iter().zip(&mut self.in_hand) {
            if in_bitmap_only(inputs, set.writer) {
                *in_hand = 0;
                continue;
            }
            let mut dirtied = match lazy {
                true => set.dirtied_with_lazy_rearm(window_ns, *in_hand),
                false => set.dirtied(window_ns),
            };
            if set.writer == Writer::Vcpu {
                dirtied = dirtied.min(faults);
                faults -= dirtied;
            }
            *in_hand = dirtied;
            sum += dirtied;
        }
        sum
    }

    /// vCPU time lost while `dirtied` pages were written: a fault for each, and an exit for each full ring.
    fn stall_ns(&self, dirtied: u64) -> Result<u64, CostError> {
        let faults = ps(dirtied, self.inputs.costs.fault_ps_per_page)?;
        let exits = self
            .inputs
            .tracking
            .ring_entries()
            .map_or(0, |entries| dirtied / (entries - RING_RESERVED_ENTRIES));
        add(
            faults,
            exits
                .checked_mul(self.inputs.costs.ring_full_exit_ns)
                .ok_or(CostError::TimeOverflow)?,
        )
    }

    /// Whether to go on after a round, and how fast.
    fn next(&self, round: &Round) -> Result<Next, CostError> {
        let stop = &self.inputs.stop;
        let at_full_rate = send_ns(round.dirtied, self.inputs.full_rate())?;
        if stop
            .downtime_limit_ns
            .is_some_and(|limit| at_full_rate <= limit)
        {
            return Ok(Next::Stop(StopReason::DowntimeLimit));
        }
        if round.dirtied.saturating_mul(PAGE_BYTES) <= stop.few_bytes {
            return Ok(Next::Stop(StopReason::FewBytes));
        }
        let kept = u128::from(round.dirtied) * 1000;
        if stop
            .no_progress_per_mille
            .is_some_and(|limit| kept >= u128::from(round.pages) * u128::from(limit))
        {
            return Ok(Next::Stop(StopReason::NoProgress));
        }
        if self.rounds.len() >= stop.rounds_max as usize {
            return Ok(Next::Stop(StopReason::Rounds));
        }
        let RatePolicy::Adaptive { floor, step, cap } = self.inputs.rate else {
            return Ok(Next::Round(round.rate));
        };
        let dirtying =
            mul_div(round.dirtied * PAGE_BYTES, SECOND, round.ns().max(1)).unwrap_or(u64::MAX);
        let wanted = dirtying.saturating_add(step).max(floor);
        Ok(if wanted > cap {
            Next::Stop(StopReason::RateCap)
        } else {
            Next::Round(wanted.min(self.inputs.full_rate()))
        })
    }

    /// Pages written outside any vCPU since logging was enabled, where only the final bitmap tells of them.
    fn bitmap_only_pages(&self) -> u64 {
        let inputs = self.inputs;
        inputs
            .working_sets
            .iter()
            .filter(|set| in_bitmap_only(inputs, set.writer))
            .map(|set| set.dirtied(self.elapsed_ns))
            .sum()
    }
}

/// What follows a round.
enum Next {
    /// Another, at this rate in bytes per second.
    Round(u64),
    Stop(StopReason),
}

/// Whether a writer's pages are found by nothing but the bitmap collected after the stop.
fn in_bitmap_only(inputs: &Inputs, writer: Writer) -> bool {
    writer == Writer::NonVcpu && inputs.tracking.ring_entries().is_some()
}

#[cfg(test)]
mod tests {
    use super::super::constants::Costs;
    use super::super::workload::{Pattern, WorkingSet};
    use super::*;

    /// 1000 pages at 1000 pages a second, nothing else costing anything.
    fn plain(tracking: Tracking) -> Inputs {
        Inputs {
            memory_bytes: 1000 * PAGE_BYTES,
            link_bits_per_s: 8 * 1000 * WIRE_PAGE_BYTES,
            goodput_per_mille: 1000,
            stream_bytes_per_s: 1 << 40,
            vcpus: 1,
            working_sets: vec![WorkingSet {
                bytes: 800 * PAGE_BYTES,
                bytes_per_s: 400 * PAGE_BYTES,
                pattern: Pattern::Sweep,
                writer: Writer::Vcpu,
            }],
            device_save_pages: 0,
            tracking,
            stop: super::super::inputs::StopRule {
                downtime_limit_ns: Some(50 * 1_000_000),
                ..Default::default()
            },
            costs: Costs {
                harvest_ps_per_entry: 0,
                ring_full_exit_ns: 0,
                ioctl_ns: 0,
                rearm_ps_per_page: 0,
                fault_ps_per_page: 0,
                pause_ns_per_vcpu: 0,
                state_save_ns: 0,
                state_send_ns: 0,
                handover_ns: 0,
            },
            ..Inputs::default()
        }
    }

    fn sent(outcome: &Outcome) -> Vec<u64> {
        outcome.rounds.iter().map(|round| round.pages).collect()
    }

    #[test]
    fn rounds_shrink_by_the_ratio_of_dirtying_to_sending() {
        // 1 s sends 1000 and dirties 400; 0.4 s dirties 160; then 64; 26 pages take 26 ms, within 50 ms.
        let outcome = simulate(&plain(Tracking::Ring { entries: 4096 })).unwrap();
        assert_eq!(sent(&outcome), [1000, 400, 160, 64]);
        assert_eq!(outcome.vcpu_pages_left, 26);
        assert_eq!(outcome.stop, StopReason::DowntimeLimit);
        assert_eq!(outcome.downtime.copy_ns, 26_000_000);
        assert_eq!(
            outcome.bytes_sent,
            (1000 + 400 + 160 + 64 + 26) * WIRE_PAGE_BYTES
        );
        // 1.624 s of rounds and 26 ms, plus 1000 pages' enabling at 13.7 ns.
        assert_eq!(outcome.total_ns / 1_000_000, 1650);
    }

    #[test]
    fn clear_before_sending_finds_fewer_pages_than_rearming_at_the_start() {
        let eager = simulate(&plain(Tracking::Bitmap(Rearm::Get))).unwrap();
        let lazy = simulate(&plain(Tracking::Bitmap(Rearm::ClearInitiallySet))).unwrap();
        assert_eq!(eager.rounds[0].dirtied, 400);
        // Every page of the set is in hand, half a turn in the round: 800 * 0.5 / 2.
        assert_eq!(lazy.rounds[0].dirtied, 200);
        // Without INITIALLY_SET the first round is tracked from its start.
        assert_eq!(
            simulate(&plain(Tracking::Bitmap(Rearm::Clear)))
                .unwrap()
                .rounds[0]
                .dirtied,
            400
        );
    }

    #[test]
    fn beside_rings_other_writers_wait_for_the_final_bitmap() {
        let mut inputs = plain(Tracking::RingWithBitmap { entries: 4096 });
        inputs.working_sets.push(WorkingSet {
            bytes: 100 * PAGE_BYTES,
            bytes_per_s: 10 * PAGE_BYTES,
            pattern: Pattern::Sweep,
            writer: Writer::NonVcpu,
        });
        inputs.device_save_pages = 7;
        let outcome = simulate(&inputs).unwrap();
        assert_eq!(sent(&outcome), [1000, 400, 160, 64]);
        // 1.624 s at 10 pages a second, and what the save writes.
        assert_eq!(outcome.bitmap_pages_left, 16 + 7);
        assert_eq!(outcome.downtime.copy_bitmap_ns, 23_000_000);
    }

    #[test]
    fn a_guest_that_dirties_faster_than_the_link_never_converges() {
        let mut inputs = plain(Tracking::Ring { entries: 4096 });
        inputs.working_sets[0].bytes_per_s = 4000 * PAGE_BYTES;
        inputs.stop.rounds_max = 5;
        let outcome = simulate(&inputs).unwrap();
        assert_eq!(outcome.stop, StopReason::Rounds);
        assert_eq!(sent(&outcome), [1000, 800, 800, 800, 800]);
    }

    #[test]
    fn the_adaptive_rate_climbs_by_its_step_and_ends_at_its_cap() {
        let mut inputs = plain(Tracking::Bitmap(Rearm::Get));
        inputs.link_bits_per_s *= 100;
        inputs.stop.downtime_limit_ns = None;
        let page = WIRE_PAGE_BYTES;
        inputs.rate = RatePolicy::Adaptive {
            floor: 1000 * page,
            step: 100 * page,
            cap: 1500 * page,
        };
        let outcome = simulate(&inputs).unwrap();
        assert_eq!(outcome.rounds[0].rate, 1000 * page);
        // Sweeping 400 pages a second: below the floor, so the rate stays until nothing but rounds or bytes end it.
        assert!(outcome.rounds.iter().all(|round| round.rate == 1000 * page));
        inputs.working_sets[0].bytes_per_s = 40_000 * PAGE_BYTES;
        let outcome = simulate(&inputs).unwrap();
        assert_eq!(outcome.stop, StopReason::RateCap);
        // 800 pages a second are dirtied in the first round, so 900 are wanted and the floor holds. From then on a round
        // finds as many pages as it sent: each rate is the last, times 4096/4104 for the header, plus 100.
        let rates: Vec<u64> = outcome
            .rounds
            .iter()
            .map(|round| round.rate / page)
            .collect();
        assert_eq!(rates, [1000, 1000, 1098, 1195, 1293, 1391, 1488]);
    }

    #[test]
    fn a_vcpu_takes_one_fault_at_a_time() {
        let mut inputs = plain(Tracking::Ring { entries: 4096 });
        inputs.costs.fault_ps_per_page = 10_000_000_000;
        let outcome = simulate(&inputs).unwrap();
        // 10 ms a fault: 100 in the first second.
        assert_eq!(outcome.rounds[0].dirtied, 100);
        assert_eq!(outcome.rounds[0].guest_stall_ns, 1_000_000_000);
    }

    #[test]
    fn a_time_beyond_64_bits_is_an_error() {
        let mut inputs = plain(Tracking::Bitmap(Rearm::Get));
        inputs.memory_bytes = super::super::inputs::MEMORY_MAX_BYTES;
        inputs.link_bits_per_s = 8;
        assert_eq!(simulate(&inputs), Err(CostError::TimeOverflow));
    }
}
