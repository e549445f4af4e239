//! What outlives a panic (O11): the task of one signal is started again a second later, and the others do not notice. A panic
//! of the reader itself ends the process, and the supervisor forks another.

use std::panic::PanicHookInfo;
use std::time::Duration;

use saola_observability::closed::Level;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::bridge;
use crate::voice::Voice;

/// Runs what `start` makes until it ends; after a panic says `panicked` and, a second later, runs another.
pub(crate) async fn again<F>(
    panicked: &str,
    voice: &Voice,
    mut start: impl FnMut() -> F,
) -> F::Output
where
    F: Future<Output: 'static> + 'static,
{
    loop {
        if let Ok(output) = spawn_local(start()).await {
            return output;
        }
        voice.say(Level::Error, panicked, &[]);
        sleep(RESTART_AFTER).await;
    }
}

/// Makes a line of each panic of this process, whichever thread it is on. On stderr it stands as before.
pub(crate) fn tell_of_panics() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        bridge::hear_at_once(Level::Error, "panic", &words(info));
        previous(info);
    }));
}

fn words(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("no message");
    info.location().map_or_else(|| text.to_owned(), |place| format!("{text}, at {place}"))
}

pub(crate) const RESTART_AFTER: Duration = Duration::from_secs(1);
