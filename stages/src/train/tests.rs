//! Train's options: what is refused before a run, and what each does in one, on the random tiny model.

mod checks;
mod runs;
