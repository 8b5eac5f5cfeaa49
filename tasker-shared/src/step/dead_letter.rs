//! Why something is parked, and what became of it.

use crate::text_enum;

text_enum! {
    /// Why a message or step was parked.
    DeadLetterReason {
        /// It failed, or took its reader down, too often.
        Poison = "poison",
        /// It was not understood.
        Unreadable = "unreadable",
        /// No worker had its handler for too long.
        HandlerNotFound = "handler_not_found",
        /// It stood still too often.
        Stalled = "stalled",
        /// An operator parked it.
        Manual = "manual",
    }
}

text_enum! {
    /// How a dead letter was dealt with.
    Resolution {
        /// The work was put back.
        Redriven = "redriven",
        /// It was dealt with otherwise.
        Resolved = "resolved",
        /// It was given up.
        Discarded = "discarded",
    }
}

text_enum! {
    /// How a step stood still.
    StallKind {
        /// Its lease ran out, and nobody took it.
        LeaseLapsed = "lease_lapsed",
        /// It ran on past its own timeout, with a lease that was extended all the time.
        Overrun = "overrun",
        /// Its message was gone.
        MessageLost = "message_lost",
    }
}
