//! One or two parameters varied over ranges, everything else fixed.

use super::error::CostError;
use super::inputs::{Inputs, Tracking};
use super::precopy::{Outcome, simulate};
use super::units::{
    PAGE_BYTES, parse_bits_per_s, parse_bytes, parse_bytes_per_s, parse_count, parse_duration,
};
use super::workload::{WorkingSet, Writer};

/// A parameter that can be swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Guest memory, bytes.
    Memory,
    /// Link speed, bits per second.
    Bandwidth,
    /// What the first vCPU working set is written at, bytes per second.
    DirtyRate,
    /// The size of the first vCPU working set, bytes.
    WorkingSet,
    /// What the first non-vCPU working set is written at, bytes per second.
    NonVcpuRate,
    /// Pages that the final device save writes.
    DeviceSavePages,
    /// vCPUs.
    Vcpus,
    /// Entries of each ring.
    RingEntries,
    /// The downtime limit, nanoseconds.
    DowntimeLimit,
}

impl Parameter {
    /// All of them, for help texts.
    pub const ALL: [Self; 9] = [
        Self::Memory,
        Self::Bandwidth,
        Self::DirtyRate,
        Self::WorkingSet,
        Self::NonVcpuRate,
        Self::DeviceSavePages,
        Self::Vcpus,
        Self::RingEntries,
        Self::DowntimeLimit,
    ];

    /// The name on the command line and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Bandwidth => "bandwidth",
            Self::DirtyRate => "dirty-rate",
            Self::WorkingSet => "working-set",
            Self::NonVcpuRate => "non-vcpu-rate",
            Self::DeviceSavePages => "device-save-pages",
            Self::Vcpus => "vcpus",
            Self::RingEntries => "ring-entries",
            Self::DowntimeLimit => "downtime-limit",
        }
    }

    /// The unit of its values in JSON and on axes.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Memory | Self::WorkingSet => "bytes",
            Self::Bandwidth => "bits/s",
            Self::DirtyRate | Self::NonVcpuRate => "bytes/s",
            Self::DeviceSavePages => "pages",
            Self::Vcpus => "vCPUs",
            Self::RingEntries => "entries",
            Self::DowntimeLimit => "ns",
        }
    }

    /// What its values are divided by on a chart, and the unit then.
    pub(super) fn shown(self) -> (u64, &'static str) {
        match self {
            Self::Memory | Self::WorkingSet => (1 << 20, "MiB"),
            Self::Bandwidth => (1_000_000_000, "Gbit/s"),
            Self::DirtyRate | Self::NonVcpuRate => (1_000_000, "MB/s"),
            Self::DeviceSavePages => (1, "pages"),
            Self::Vcpus | Self::RingEntries => (1, ""),
            Self::DowntimeLimit => (1_000_000, "ms"),
        }
    }

    fn parse(self, text: &str) -> Result<u64, CostError> {
        let what = self.name();
        match self {
            Self::Memory | Self::WorkingSet => parse_bytes(what, text),
            Self::Bandwidth => parse_bits_per_s(what, text),
            Self::DirtyRate | Self::NonVcpuRate => parse_bytes_per_s(what, text),
            Self::DeviceSavePages | Self::Vcpus => parse_count(what, text),
            Self::RingEntries => parse_bytes(what, text),
            Self::DowntimeLimit => parse_duration(what, text),
        }
    }

    /// Sizes go in whole pages and rings in powers of two: the nearest such value not above.
    fn round(self, value: u64) -> u64 {
        match self {
            Self::Memory | Self::WorkingSet => value / PAGE_BYTES * PAGE_BYTES,
            Self::RingEntries => value.checked_ilog2().map_or(0, |power| 1 << power),
            _ => value,
        }
    }

    /// Sets the parameter.
    pub fn set(self, inputs: &mut Inputs, value: u64) {
        match self {
            Self::Memory => inputs.memory_bytes = value,
            Self::Bandwidth => inputs.link_bits_per_s = value,
            Self::DirtyRate => {
                if let Some(set) = first(inputs, Writer::Vcpu) {
                    set.bytes_per_s = value;
                }
            }
            Self::WorkingSet => {
                if let Some(set) = first(inputs, Writer::Vcpu) {
                    set.bytes = value;
                }
            }
            Self::NonVcpuRate => {
                if let Some(set) = first(inputs, Writer::NonVcpu) {
                    set.bytes_per_s = value;
                }
            }
            Self::DeviceSavePages => inputs.device_save_pages = value,
            Self::Vcpus => inputs.vcpus = value,
            Self::RingEntries => match &mut inputs.tracking {
                Tracking::Ring { entries } | Tracking::RingWithBitmap { entries } => {
                    *entries = value
                }
                Tracking::Bitmap(_) => {}
            },
            Self::DowntimeLimit => inputs.stop.downtime_limit_ns = Some(value),
        }
    }

    /// Whether the inputs have what this parameter changes.
    fn applies(self, inputs: &Inputs) -> bool {
        let has = |writer| inputs.working_sets.iter().any(|set| set.writer == writer);
        match self {
            Self::DirtyRate | Self::WorkingSet => has(Writer::Vcpu),
            Self::NonVcpuRate => has(Writer::NonVcpu),
            Self::RingEntries => inputs.tracking.ring_entries().is_some(),
            _ => true,
        }
    }
}

/// The first working set with such a writer.
fn first(inputs: &mut Inputs, writer: Writer) -> Option<&mut WorkingSet> {
    inputs
        .working_sets
        .iter_mut()
        .find(|set| set.writer == writer)
}

/// A range of values of one parameter, both ends included, evenly spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// What varies.
    pub parameter: Parameter,
    /// The first value, in [`Parameter::unit`].
    pub from: u64,
    /// The last value.
    pub to: u64,
    /// How many values.
    pub points: u64,
}

/// The most points of a sweep.
pub const POINTS_MAX: u64 = 10_000;

impl Sweep {
    /// Reads `bandwidth=1G..40G:10`; without `:POINTS` there are 10.
    ///
    /// # Errors
    /// [`CostError::Sweep`] or [`CostError::Number`].
    pub fn parse(text: &str) -> Result<Self, CostError> {
        let bad = |why: String| CostError::Sweep {
            text: text.to_owned(),
            why,
        };
        let (name, range) = text
            .split_once('=')
            .ok_or_else(|| bad("there is no `=`".into()))?;
        let parameter = Parameter::ALL
            .into_iter()
            .find(|p| p.name() == name.trim())
            .ok_or_else(|| {
                let names: Vec<_> = Parameter::ALL.iter().map(|p| p.name()).collect();
                bad(format!(
                    "no parameter is called `{name}`; there are {}",
                    names.join(", ")
                ))
            })?;
        let (range, points) = match range.rsplit_once(':') {
            Some((range, points)) => (range, parse_count("points", points)?),
            None => (range, 10),
        };
        let (from, to) = range
            .split_once("..")
            .ok_or_else(|| bad("there is no `..`".into()))?;
        let (from, to) = (parameter.parse(from)?, parameter.parse(to)?);
        if from > to {
            return Err(bad("the range runs downwards".into()));
        }
        if !(2..=POINTS_MAX).contains(&points) {
            return Err(bad(format!("{points} points; give from 2 to {POINTS_MAX}")));
        }
        Ok(Self {
            parameter,
            from,
            to,
            points,
        })
    }

    /// The values, in order, without repetitions that rounding to whole pages or powers of two would make.
    #[must_use]
    pub fn values(&self) -> Vec<u64> {
        let span = u128::from(self.to - self.from);
        let last = u128::from(self.points.max(2) - 1);
        let mut values: Vec<u64> = (0..=last)
            .map(|i| self.parameter.round(self.from + (span * i / last) as u64))
            .collect();
        values.dedup();
        values
    }
}

/// The most parameters that are varied together.
pub const SWEEPS_MAX: usize = 2;

/// Simulates each value; of two sweeps each value of the first with each of the second. The values stand with what came of them.
///
/// # Errors
/// The first error of [`simulate`]; [`CostError::Sweep`] if the inputs have nothing that a parameter changes, a parameter is varied twice, or
/// there are too many points.
pub fn sweep(sweeps: &[Sweep], base: &Inputs) -> Result<Vec<(Vec<u64>, Outcome)>, CostError> {
    let bad = |sweep: &Sweep, why: String| CostError::Sweep {
        text: sweep.parameter.name().to_owned(),
        why,
    };
    let mut points: Vec<(Vec<u64>, Inputs)> = vec![(Vec::new(), base.clone())];
    for (index, sweep) in sweeps.iter().enumerate() {
        if !sweep.parameter.applies(base) {
            return Err(bad(
                sweep,
                "the migration has nothing that this parameter changes (no such working set, or no rings)".into(),
            ));
        }
        if sweeps[..index]
            .iter()
            .any(|other| other.parameter == sweep.parameter)
        {
            return Err(bad(sweep, "it is varied already".into()));
        }
        let values = sweep.values();
        let count = points.len() as u64 * values.len() as u64;
        if index >= SWEEPS_MAX || count > POINTS_MAX {
            return Err(bad(
                sweep,
                format!(
                    "{count} points; at most {SWEEPS_MAX} parameters, and {POINTS_MAX} points of both together"
                ),
            ));
        }
        points = points
            .iter()
            .flat_map(|(before, inputs)| {
                values.iter().map(|&value| {
                    let mut inputs = inputs.clone();
                    sweep.parameter.set(&mut inputs, value);
                    ([before.as_slice(), &[value]].concat(), inputs)
                })
            })
            .collect();
    }
    points
        .into_iter()
        .map(|(values, inputs)| Ok((values, simulate(&inputs)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_includes_both_ends() {
        let sweep = Sweep::parse("bandwidth=1G..40G:4").unwrap();
        assert_eq!(
            sweep.values(),
            [
                1_000_000_000,
                14_000_000_000,
                27_000_000_000,
                40_000_000_000
            ]
        );
        assert_eq!(
            Sweep::parse("ring-entries=1Ki..8Ki:15").unwrap().values(),
            [1024, 2048, 4096, 8192]
        );
        assert_eq!(Sweep::parse("vcpus=1..4:4").unwrap().values(), [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_no_sweep_is_told_how_to_write_one() {
        for text in [
            "bandwidth",
            "speed=1..2",
            "vcpus=1-2",
            "vcpus=4..1",
            "vcpus=1..4:1",
            "vcpus=1..x",
        ] {
            let error = Sweep::parse(text).unwrap_err().to_string();
            assert!(!error.is_empty(), "{text}");
        }
        assert!(
            Sweep::parse("speed=1..2")
                .unwrap_err()
                .to_string()
                .contains("bandwidth")
        );
    }

    #[test]
    fn a_sweep_that_would_change_nothing_is_refused() {
        let inputs = Inputs {
            tracking: Tracking::Bitmap(super::super::inputs::Rearm::Clear),
            ..Inputs::default()
        };
        let rings = Sweep::parse("ring-entries=1Ki..8Ki").unwrap();
        assert!(matches!(
            sweep(&[rings], &inputs),
            Err(CostError::Sweep { .. })
        ));
        let vcpus = Sweep::parse("vcpus=1..4").unwrap();
        assert!(sweep(&[vcpus, vcpus], &inputs).is_err());
    }

    #[test]
    fn two_sweeps_are_every_pair_and_a_row_of_one_is_that_sweep() {
        let base = Inputs::default();
        let one = Sweep::parse("bandwidth=10G..40G:3").unwrap();
        let other = Sweep::parse("vcpus=1..4:4").unwrap();
        let pairs = sweep(&[one, other], &base).unwrap();
        assert_eq!(pairs.len(), 12);
        assert_eq!(pairs[1].0, [10_000_000_000, 2]);
        let mut fixed = base.clone();
        Parameter::Vcpus.set(&mut fixed, 2);
        let alone = sweep(&[one], &fixed).unwrap();
        let row: Vec<&Outcome> = pairs
            .iter()
            .filter(|(values, _)| values[1] == 2)
            .map(|(_, outcome)| outcome)
            .collect();
        assert_eq!(row, alone.iter().map(|(_, o)| o).collect::<Vec<_>>());
        let many = Sweep::parse("memory=1G..24G:10000").unwrap();
        assert!(sweep(&[many, other], &base).is_err());
    }
}
