//! Who hears a run.

use crate::event::Envelope;

/// Something that hears the events of a run, one after the other.
pub trait Listener {
    /// Hears one event.
    fn hear(&mut self, told: &Envelope);
}
