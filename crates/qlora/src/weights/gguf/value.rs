//! Metadata values of a GGUF header.

use super::cursor::Cursor;
use crate::error::Result;

/// Arrays in arrays deeper than this are an attack, not a model.
const MAX_DEPTH: usize = 4;

/// One metadata value; integers of all widths are one kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Int(i64),
    /// Only for values past `i64::MAX`.
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

impl Value {
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self> {
        let kind = cursor.u32()?;
        Self::read_kind(cursor, kind, 0)
    }

    fn read_kind(cursor: &mut Cursor, kind: u32, depth: usize) -> Result<Self> {
        Ok(match kind {
            0 => Self::Int(cursor.array::<1>()?[0].into()),
            1 => Self::Int(i8::from_le_bytes(cursor.array()?).into()),
            2 => Self::Int(u16::from_le_bytes(cursor.array()?).into()),
            3 => Self::Int(i16::from_le_bytes(cursor.array()?).into()),
            4 => Self::Int(cursor.u32()?.into()),
            5 => Self::Int(i32::from_le_bytes(cursor.array()?).into()),
            6 => Self::Float(f32::from_le_bytes(cursor.array()?).into()),
            7 => Self::Bool(cursor.array::<1>()?[0] != 0),
            8 => Self::Text(cursor.text()?),
            9 => Self::read_array(cursor, depth)?,
            10 => {
                let value = cursor.u64()?;
                i64::try_from(value).map_or(Self::Unsigned(value), Self::Int)
            }
            11 => Self::Int(i64::from_le_bytes(cursor.array()?)),
            12 => Self::Float(f64::from_le_bytes(cursor.array()?)),
            other => return Err(cursor.broken(format!("metadata type {other} does not exist"))),
        })
    }

    fn read_array(cursor: &mut Cursor, depth: usize) -> Result<Self> {
        if depth == MAX_DEPTH {
            return Err(cursor.broken("arrays lie too deep in each other"));
        }
        let kind = cursor.u32()?;
        let count = usize::try_from(cursor.u64()?).unwrap_or(usize::MAX);
        // A count is a claim: room is made for a large vocabulary, more only as elements come.
        let mut values = Vec::with_capacity(count.min(1 << 18));
        for _ in 0..count {
            values.push(Self::read_kind(cursor, kind, depth + 1)?);
        }
        Ok(Self::Array(values))
    }

    pub(crate) fn as_usize(&self) -> Option<usize> {
        match self {
            Self::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    pub(crate) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Unsigned(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// For messages: the value, or what it is where it is long.
    pub(crate) fn short(&self) -> String {
        match self {
            Self::Int(value) => value.to_string(),
            Self::Unsigned(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Text(text) => text.chars().take(60).collect(),
            Self::Array(values) => format!("an array of {}", values.len()),
        }
    }
}
