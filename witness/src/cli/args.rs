//! Arguments: a few options with and without a value. A parser of its own, since the arm64 witness is built with what a distribution's compiler
//! and little else can build.

use std::ops::Range;

use crate::refusal::Refused;

/// Parsed arguments of one command.
pub(super) struct Args {
    flags: Vec<String>,
    values: Vec<(String, String)>,
    positional: Vec<String>,
}

impl Args {
    /// Takes arguments apart: `flags` have no value, `options` have one (`--seeds 0..10` or `--seeds=0..10`), the rest are positional.
    pub(super) fn parse(
        arguments: &[String],
        flags: &[&str],
        options: &[&str],
        positional_max: usize,
    ) -> Result<Self, Refused> {
        let mut args = Self {
            flags: Vec::new(),
            values: Vec::new(),
            positional: Vec::new(),
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let (name, joined) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with('-') => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            if flags.contains(&name) && joined.is_none() {
                args.flags.push(name.to_owned());
            } else if options.contains(&name) {
                let value = joined
                    .or_else(|| rest.next().cloned())
                    .ok_or_else(|| Refused(format!("`{name}` without its value")))?;
                if args.values.iter().any(|(seen, _)| seen == name) {
                    return Err(Refused(format!("`{name}` is given twice")));
                }
                args.values.push((name.to_owned(), value));
            } else if name.starts_with('-') {
                let known: Vec<&str> = flags.iter().chain(options).copied().collect();
                return Err(Refused(format!(
                    "no option `{name}` here: there are {}",
                    known.join(", ")
                )));
            } else if args.positional.len() < positional_max {
                args.positional.push(argument.clone());
            } else {
                return Err(Refused(format!("`{argument}` is one argument too many")));
            }
        }
        Ok(args)
    }

    /// Whether a flag was given.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    /// An option's value.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values
            .iter()
            .find(|(option, _)| option == name)
            .map(|(_, value)| value.as_str())
    }

    /// An option's value as a number.
    pub(super) fn number(&self, name: &str, default: u64) -> Result<u64, Refused> {
        self.value(name).map_or(Ok(default), |value| {
            value
                .parse()
                .map_err(|_| Refused(format!("`{name} {value}`: write a whole number")))
        })
    }

    /// An option's value as a half-open range of seeds.
    pub(super) fn seeds(&self, name: &str, default: Range<u64>) -> Result<Range<u64>, Refused> {
        let Some(value) = self.value(name) else {
            return Ok(default);
        };
        let wrong = || {
            Refused(format!(
                "`{name} {value}`: write A..B with A below B, as in 0..100"
            ))
        };
        let (first, end) = value.split_once("..").ok_or_else(wrong)?;
        let range = first.parse().map_err(|_| wrong())?..end.parse().map_err(|_| wrong())?;
        if range.is_empty() {
            Err(wrong())
        } else {
            Ok(range)
        }
    }

    /// The only positional argument.
    pub(super) fn positional(&self, what: &str) -> Result<&str, Refused> {
        self.positional
            .first()
            .map(String::as_str)
            .ok_or_else(|| Refused(format!("missing: {what}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Args, Refused> {
        let arguments: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Args::parse(&arguments, &["--json"], &["--seeds", "-o"], 1)
    }

    #[test]
    fn options_take_their_value_either_way_and_seeds_are_half_open() {
        let args = parse("a --seeds=3..5 -o x --json").expect("well formed");
        assert_eq!(args.seeds("--seeds", 0..1), Ok(3..5));
        assert_eq!(
            (
                args.value("-o"),
                args.flag("--json"),
                args.positional("a").ok()
            ),
            (Some("x"), true, Some("a"))
        );
    }

    #[test]
    fn an_unknown_option_a_missing_value_and_an_empty_range_are_refused() {
        assert!(parse("--sedes 1..2").is_err());
        assert!(parse("-o").is_err());
        assert!(parse("a b").is_err());
        assert!(
            parse("--seeds 5..5")
                .expect("parses")
                .seeds("--seeds", 0..1)
                .is_err()
        );
    }
}
