//! The name of a step: what traces call it, and what a story says of it.
//!
//! A step's name stands once, where the step is: in the operation's file, or in the vCPU's or the device's room.

/// The name of a step.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    name: &'static str,
    text: &'static str,
    is_quiet: bool,
}

/// A step that a line about a whole block mentions.
pub(crate) const fn loud(name: &'static str, text: &'static str) -> Word {
    Word {
        name,
        text,
        is_quiet: false,
    }
}

/// A step that a line about a whole block passes over, unless it comes last.
pub(crate) const fn quiet(name: &'static str, text: &'static str) -> Word {
    Word {
        name,
        text,
        is_quiet: true,
    }
}

impl Word {
    /// What an actor does who has nothing left to do.
    pub const NOTHING: Self = quiet("nothing", "does nothing");

    /// The name in traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// What the actor does, for people; with `{page}` where the page's name belongs.
    #[must_use]
    pub const fn text(self) -> &'static str {
        self.text
    }

    /// Whether a line about a whole block passes over the step, unless it comes last.
    #[must_use]
    pub const fn is_quiet(self) -> bool {
        self.is_quiet
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Word {}

impl PartialEq<&str> for Word {
    fn eq(&self, other: &&str) -> bool {
        self.name == *other
    }
}

impl core::fmt::Display for Word {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}
