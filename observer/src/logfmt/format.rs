//! How lines look: what a setting, a terminal and the environment say of it.

/// How lines look.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Format {
    /// `key=value` pairs: for machines, and still readable.
    Logfmt,
    /// One JSON object a line, with the same keys.
    Json,
    /// For people at a terminal.
    Pretty,
}

/// What `--log-format` may say.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub enum FormatChoice {
    /// [`Format::Pretty`] on a terminal, else [`Format::Logfmt`].
    #[default]
    Auto,
    /// Always this one.
    Always(Format),
}

impl FormatChoice {
    /// Reads `auto`, `logfmt`, `json` or `pretty`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "logfmt" => Some(Self::Always(Format::Logfmt)),
            "json" => Some(Self::Always(Format::Json)),
            "pretty" => Some(Self::Always(Format::Pretty)),
            _ => None,
        }
    }

    /// Decides the format, knowing whether stdout is a terminal.
    pub fn resolve(self, is_terminal: bool) -> Format {
        match self {
            Self::Always(format) => format,
            Self::Auto if is_terminal => Format::Pretty,
            Self::Auto => Format::Logfmt,
        }
    }
}

/// What decides whether lines are coloured; the environment is read by the caller.
#[derive(Copy, Clone, Default, Debug)]
pub struct ColourFacts<'a> {
    /// Whether stdout is a terminal.
    pub is_terminal: bool,
    /// `NO_COLOR`: any value that is not empty switches colours off.
    pub no_color: Option<&'a str>,
    /// `TERM`: `dumb` switches colours off.
    pub term: Option<&'a str>,
    /// `CLICOLOR_FORCE`: anything but empty and `0` forces colours, whatever the others say.
    pub clicolor_force: Option<&'a str>,
}

impl ColourFacts<'_> {
    /// Whether lines for people are coloured.
    pub fn wants_colour(self) -> bool {
        let is_set = |value: Option<&str>| value.is_some_and(|value| !value.is_empty());
        if is_set(self.clicolor_force) && self.clicolor_force != Some("0") {
            return true;
        }
        self.is_terminal && !is_set(self.no_color) && self.term != Some("dumb")
    }
}
