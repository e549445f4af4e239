//! Why something that was recorded is told nowhere: the values of the labels `reason`.

/// Why a line was not written; the label `reason` of `saola_log_lines_dropped_total`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum LostLines {
    /// Nobody read stdout for so long that a ring was filling up.
    Blocked,
    /// Stdout is a pipe without a reader.
    Closed,
    /// Stdout refuses bytes.
    WriteError,
    /// The observer stopped.
    Shutdown,
}

impl LostLines {
    pub(crate) const ALL: [Self; 4] =
        [Self::Blocked, Self::Closed, Self::WriteError, Self::Shutdown];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Closed => "closed",
            Self::WriteError => "write_error",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Why a span was not exported; the label `reason` of `saola_spans_dropped_total`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum LostSpans {
    /// The queue was full.
    Queue,
    /// Its request had more children than are kept.
    Children,
    /// Its request had ended and was not kept, or nobody knows it.
    Late,
    /// It waited longer than a collector may be away.
    Expired,
    /// The collector refused it for good.
    Rejected,
    /// The observer stopped.
    Shutdown,
    /// The ring was being filled faster than spans were built.
    Lag,
    /// Its worker had kept as many traces as it may in a second.
    RateLimit,
}

impl LostSpans {
    pub(crate) const ALL: [Self; 8] = [
        Self::Queue,
        Self::Children,
        Self::Late,
        Self::Expired,
        Self::Rejected,
        Self::Shutdown,
        Self::Lag,
        Self::RateLimit,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Children => "children",
            Self::Late => "late",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Shutdown => "shutdown",
            Self::Lag => "lag",
            Self::RateLimit => "rate_limit",
        }
    }
}

/// Why a sample is in no profile; the label `reason` of `saola_profile_samples_dropped_total`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum LostSamples {
    /// It was taken in another program image, whose addresses mean nothing here.
    Image,
    /// Its stack was one of too many and became `[other]`.
    Folded,
    /// Its window was not taken by the profile server.
    PushFailed,
    /// The observer stopped before its window was pushed.
    Shutdown,
    /// It was overwritten before it was read.
    Lag,
}

impl LostSamples {
    pub(crate) const ALL: [Self; 5] =
        [Self::Image, Self::Folded, Self::PushFailed, Self::Shutdown, Self::Lag];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Folded => "folded",
            Self::PushFailed => "push_failed",
            Self::Shutdown => "shutdown",
            Self::Lag => "lag",
        }
    }
}
