//! What the crates that export say, as lines of the observer: each message at most once a minute, and then how often it was
//! said again (O35). They say it on threads of their own; the reader's loop asks for it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use saola_observability::closed::Level;

static HEARD: Mutex<Heard> = Mutex::new(Heard { messages: Vec::new() });

/// Something that was said.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct Message {
    pub(crate) level: Level,
    /// The crate or its module.
    pub(crate) source: String,
    pub(crate) text: String,
    /// How often since it was told last.
    pub(crate) repeated: u64,
}

/// Notes a message; the text is cut.
pub(crate) fn hear(level: Level, source: &str, text: &str) {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).hear(level, source, text);
}

/// As [`hear`], from a panic: one in here must not wait for itself.
pub(crate) fn hear_at_once(level: Level, source: &str, text: &str) {
    if let Ok(mut heard) = HEARD.try_lock() {
        heard.hear(level, source, text);
    }
}

/// What is to be told now.
pub(crate) fn news(now: Instant) -> Vec<Message> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).news(now)
}

struct Heard {
    messages: Vec<(Message, Option<Instant>)>,
}

impl Heard {
    fn hear(&mut self, level: Level, source: &str, text: &str) {
        let text = text.split_at(text.floor_char_boundary(MOST_BYTES)).0;
        let is_full = self.messages.len() >= MOST_MESSAGES;
        let known = self.messages.iter_mut().find(|(known, _)| {
            known.text == text && known.source == source && known.level == level
        });
        match known {
            Some((known, _)) => known.repeated += 1,
            // Whoever says something else each time is not listened to without end.
            None if is_full => {}
            None => {
                let (source, text) = (source.to_owned(), text.to_owned());
                self.messages.push((Message { level, source, text, repeated: 0 }, None));
            }
        }
    }

    fn news(&mut self, now: Instant) -> Vec<Message> {
        let mut news = Vec::new();
        self.messages.retain_mut(|(message, told)| match told {
            Some(told) if now.saturating_duration_since(*told) < AGAIN_AFTER => true,
            Some(_) if message.repeated == 0 => false,
            told => {
                news.push(message.clone());
                message.repeated = 0;
                *told = Some(now);
                true
            }
        });
        news
    }
}

const AGAIN_AFTER: Duration = Duration::from_mins(1);
const MOST_MESSAGES: usize = 64;
const MOST_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_told_once_a_minute_with_how_often_it_was_repeated() {
        let mut heard = Heard { messages: Vec::new() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let repeated = |news: Vec<Message>| -> Vec<u64> {
            news.into_iter().map(|message| message.repeated).collect()
        };
        heard.hear(Level::Warn, "crate", "oops");
        assert_eq!(repeated(heard.news(at(0))), [0]);
        for _ in 0..5 {
            heard.hear(Level::Warn, "crate", "oops");
        }
        assert!(heard.news(at(59)).is_empty());
        assert_eq!(repeated(heard.news(at(60))), [5]);
        assert!(heard.news(at(120)).is_empty());
        assert!(heard.messages.is_empty(), "forgotten when it was quiet for a minute");
        heard.hear(Level::Warn, "crate", "oops");
        assert_eq!(repeated(heard.news(at(121))), [0]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut heard = Heard { messages: Vec::new() };
        for number in 0..10_000 {
            heard.hear(Level::Error, "crate", &format!("{number} {}", "ä".repeat(1_000)));
        }
        let news = heard.news(Instant::now());
        assert_eq!(news.len(), MOST_MESSAGES);
        assert!(news.iter().all(|message| message.text.len() <= MOST_BYTES));
    }
}
