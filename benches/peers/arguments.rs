//! The words that benchmarks take behind `--`.

/// The whole number behind the word `name`, or the usual one where the word is absent.
///
/// # Errors
/// The word without a number.
pub fn value(arguments: &[String], name: &str, usual: u64) -> Result<u64, String> {
    match arguments.iter().position(|argument| argument == name) {
        None => Ok(usual),
        Some(at) => arguments
            .get(at + 1)
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| format!("write {name} and a whole number")),
    }
}

/// The word behind the word `name`, if it is there.
///
/// # Errors
/// The word with nothing behind it.
pub fn word<'a>(arguments: &'a [String], name: &str) -> Result<Option<&'a str>, String> {
    match arguments.iter().position(|argument| argument == name) {
        None => Ok(None),
        Some(at) => match arguments.get(at + 1) {
            Some(word) => Ok(Some(word)),
            None => Err(format!("write {name} and a word")),
        },
    }
}
