//! Colour, or none: the one place that writes escape codes.

use std::io::IsTerminal;

/// Paints text, if the place it goes to shows colours.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paint {
    colours: bool,
}

impl Paint {
    /// Colours as standard output wishes them: a terminal, and `NO_COLOR` not set.
    pub(crate) fn for_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|value| value != "dumb");
        Self {
            colours: wanted && std::io::stdout().is_terminal(),
        }
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.colours && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Names.
    pub(crate) fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    /// What matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.code("2", text)
    }

    /// What went well.
    pub(crate) fn green(self, text: &str) -> String {
        self.code("32", text)
    }

    /// What went wrong.
    pub(crate) fn red(self, text: &str) -> String {
        self.code("31", text)
    }

    /// What a person should look at.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.code("33", text)
    }

    /// What can be typed.
    pub(crate) fn cyan(self, text: &str) -> String {
        self.code("36", text)
    }
}
