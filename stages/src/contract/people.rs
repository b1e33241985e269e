//! What people have to decide before a stage can run.
//!
//! Must not know: how a row is shown, who is asked, where decisions lie.

use serde::Serialize;

/// A row that waits for a person's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Undecided {
    /// Its name in the decisions: 12 hexadecimal digits of its content's digest.
    pub row: String,
    /// What it is, in a few words: its type and who wrote it.
    pub what: String,
    /// Its first words, for those who read the decisions later.
    pub about: String,
    /// Who says what, in turn; a text may have several lines.
    pub says: Vec<(String, String)>,
    /// The whole row as it may be edited.
    pub text: String,
}

/// The end of the code of an error that only people can mend: no failure, the stage waits.
pub const WAITING_FOR_PEOPLE: &str = "::waiting-for-people";
