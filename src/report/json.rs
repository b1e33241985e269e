//! The listener for machines: one JSON object a line, as [`Envelope`] has it.

use std::io::Write;

use super::listener::Listener;
use crate::event::Envelope;

/// Writes every event as a line, flushed at once.
pub struct Json<W> {
    out: W,
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write> Listener for Json<W> {
    fn hear(&mut self, told: &Envelope) {
        let mut line = serde_json::to_vec(told).expect("events are plain data");
        line.push(b'\n');
        // A reader that went away (`| head`) does not stop the run.
        let _gone = self.out.write_all(&line).and_then(|()| self.out.flush());
    }
}
