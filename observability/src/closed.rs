//! The closed sets that records, labels and log keys are made of: each value has one number and one name.

/// Declares an enum whose variants have a number in the file and a name on the outside.
macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant = $number,)+ }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in labels, log lines and attributes.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The number in a slot file.
            pub const fn number(self) -> u8 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// The value of a number in a slot file; `None` when this version does not know it.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

closed_set! {
    /// The level of a line, most severe first.
    Level {
        /// Somebody must act.
        Error = 1 "error",
        /// Somebody may want to act.
        Warn = 2 "warn",
        /// A life event.
        Info = 3 "info",
        /// For the developer.
        Debug = 4 "debug",
        /// For the developer, in detail.
        Trace = 5 "trace",
    }
}

closed_set! {
    /// A request method as a label value; what is not here is `_OTHER` (OpenTelemetry HTTP conventions).
    Method {
        /// `GET`
        Get = 1 "GET",
        /// `HEAD`
        Head = 2 "HEAD",
        /// `POST`
        Post = 3 "POST",
        /// `PUT`
        Put = 4 "PUT",
        /// `PATCH`
        Patch = 5 "PATCH",
        /// `DELETE`
        Delete = 6 "DELETE",
        /// `OPTIONS`
        Options = 7 "OPTIONS",
        /// Any other method, or none that could be read.
        Other = 8 "_OTHER",
    }
}

impl Method {
    /// The label value of a method as it stands in a request line. Methods are case-sensitive (RFC 9110 section 9.1).
    pub fn parse(text: &str) -> Self {
        Self::ALL.iter().copied().find(|method| method.as_str() == text).unwrap_or(Self::Other)
    }
}

closed_set! {
    /// The version of HTTP that a request was read in.
    Protocol {
        /// HTTP/1.0
        Http10 = 1 "1.0",
        /// HTTP/1.1
        Http11 = 2 "1.1",
        /// HTTP/2
        Http2 = 3 "2",
    }
}

closed_set! {
    /// How a request ended.
    Outcome {
        /// Its response was handed over whole.
        Ok = 1 "ok",
        /// The client left, or a body broke off.
        Aborted = 2 "aborted",
        /// One of its deadlines passed.
        Timeout = 3 "timeout",
        /// Its handler panicked.
        Panic = 4 "panic",
        /// It died with its worker.
        Lost = 5 "lost",
    }
}

closed_set! {
    /// Where a running request is.
    Phase {
        /// In the service, no response head yet.
        Handler = 1 "handler",
        /// Its response body is being sent.
        Response = 2 "response",
    }
}

closed_set! {
    /// Whether the trace of a request is kept, and why.
    Sampling {
        /// Not kept.
        Dropped = 0 "dropped",
        /// Kept by ratio.
        Ratio = 1 "ratio",
        /// Kept because the caller's trace is.
        Parent = 2 "parent",
        /// Kept at its end, because it failed.
        Error = 3 "error",
        /// Kept at its end, because it was slow.
        Slow = 4 "slow",
        /// To be kept, but for the limit of traces a second.
        Limited = 5 "rate_limit",
    }
}

impl Sampling {
    /// Says whether the request's spans are exported.
    pub const fn is_sampled(self) -> bool {
        !matches!(self, Self::Dropped | Self::Limited)
    }
}

closed_set! {
    /// Why a request died with its worker; the label `reason` of `http_server_requests_lost_total`.
    LostReason {
        /// A signal or an exit that nobody asked for.
        Crash = 1 "crash",
        /// The worker was killed as hung.
        Timeout = 2 "timeout",
        /// The worker ran out of memory, its own limit or the system's.
        Memory = 3 "memory",
        /// The worker was killed at the end of `graceful_timeout`.
        Drain = 4 "drain",
        /// An immediate stop was ordered.
        Quit = 5 "quit",
        /// Found in the files of a supervisor that had died.
        Supervisor = 6 "supervisor",
    }
}

closed_set! {
    /// The kind of a child span (OpenTelemetry trace API, `SpanKind`).
    SpanKind {
        /// Work inside the process.
        Internal = 1 "internal",
        /// A request to another service.
        Client = 2 "client",
        /// A request from another service.
        Server = 3 "server",
        /// A message sent.
        Producer = 4 "producer",
        /// A message received.
        Consumer = 5 "consumer",
    }
}

closed_set! {
    /// The status of a child span (OpenTelemetry trace API, `StatusCode`).
    SpanStatus {
        /// Nothing was said.
        Unset = 0 "unset",
        /// Said to be good.
        Ok = 1 "ok",
        /// Failed.
        Error = 2 "error",
    }
}

closed_set! {
    /// The state of a slot, as readers see it.
    SlotState {
        /// Nobody owns it.
        Free = 0 "free",
        /// Its worker was forked and is not ready yet.
        Starting = 1 "starting",
        /// Its worker serves.
        Ready = 2 "ready",
        /// Its worker finishes open work.
        Draining = 3 "draining",
        /// Its worker was reaped and its requests are not yet reported.
        Ended = 4 "ended",
    }
}

closed_set! {
    /// The kinds of process that own a slot file.
    Role {
        /// The parent.
        Supervisor = 1 "supervisor",
        /// The child that reads and exports.
        Observer = 2 "observer",
        /// A child that serves.
        Worker = 3 "worker",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_go_both_ways() {
        for method in Method::ALL {
            assert_eq!(Method::from_number(method.number()), Some(*method));
            assert_eq!(Method::parse(method.as_str()), *method);
        }
        assert_eq!(Method::parse("get"), Method::Other);
        assert_eq!(Outcome::from_number(9), None);
        assert!(!Sampling::Limited.is_sampled());
        assert!(!Sampling::Dropped.is_sampled() && Sampling::Slow.is_sampled());
    }
}
