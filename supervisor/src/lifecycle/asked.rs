//! What operators ask for, by signal or by command, and who they are.

/// Who asked for something, as an operator line shows it.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub(crate) struct Origin {
    /// The signal's name.
    pub(crate) signal: &'static str,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    /// Who waits for an answer, when it came by the control socket.
    pub(crate) client: Option<Client>,
}

/// A request on the control socket that wants an answer.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub(crate) struct Client(pub(crate) u64);

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Scale {
    More,
    Fewer,
    By(i32),
    To(u32),
}

impl Scale {
    /// What it makes of a number of workers; 0 where there is no such number.
    pub(crate) fn of(self, workers: u32) -> u32 {
        let wanted = match self {
            Self::More => workers.checked_add(1),
            Self::Fewer => workers.checked_sub(1),
            Self::By(difference) => workers.checked_add_signed(difference),
            Self::To(number) => Some(number),
        };
        wanted.unwrap_or_default()
    }
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Stop {
    /// Ends with the last connection; a second request for it is quick.
    Graceful,
    /// Ends at once; open requests are reported lost.
    Quick,
}
