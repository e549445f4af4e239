//! Why an upgrade came to nothing.

use crate::Exit;

/// The stage that it did not pass, and what was said there. It goes over to the image that is gone back to.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Failure {
    pub(crate) stage: String,
    pub(crate) text: Option<String>,
    /// Of the command that waits.
    pub(crate) exit: Exit,
}

impl Failure {
    pub(super) fn new(stage: &str, exit: Exit, text: Option<String>) -> Self {
        Self { stage: stage.to_owned(), text, exit }
    }

    pub(crate) fn why(&self) -> String {
        match &self.text {
            Some(text) => format!("{}: {text}", self.stage),
            None => self.stage.clone(),
        }
    }
}
