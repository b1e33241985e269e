//! Graph drawings.
