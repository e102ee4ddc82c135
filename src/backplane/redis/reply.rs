//! Reads answers of scripts. An answer of another shape than the script makes is [`Refusal::Broken`]: somebody else's
//! data under our name.

use bytes::Bytes;
use redis::Value;

use super::super::contract::{Failed, Refusal};
use super::payload::number;

const BROKEN: Failed = Failed::Refused(Refusal::Broken);

/// The elements of an array.
pub(super) fn array(value: Value) -> Result<std::vec::IntoIter<Value>, Failed> {
    match value {
        Value::Array(values) => Ok(values.into_iter()),
        _ => Err(BROKEN),
    }
}

/// A number, as such or in digits.
pub(super) fn integer(value: Option<Value>) -> Result<u64, Failed> {
    match value {
        Some(Value::Int(number)) => u64::try_from(number).map_err(|_| BROKEN),
        Some(Value::BulkString(digits)) => number(&digits).ok_or(BROKEN),
        _ => Err(BROKEN),
    }
}

/// Bytes.
pub(super) fn bytes(value: Option<Value>) -> Result<Bytes, Failed> {
    match value {
        Some(Value::BulkString(bytes)) => Ok(bytes.into()),
        Some(Value::SimpleString(text)) => Ok(text.into()),
        Some(Value::VerbatimString { text, .. }) => Ok(text.into()),
        Some(Value::Okay) => Ok(Bytes::from_static(b"OK")),
        _ => Err(BROKEN),
    }
}

/// Bytes that are text.
pub(super) fn text(value: Option<Value>) -> Result<String, Failed> {
    String::from_utf8(bytes(value)?.into()).map_err(|_| BROKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_another_shape_are_broken() {
        assert_eq!(integer(Some(Value::BulkString(b"17".to_vec()))), Ok(17));
        assert_eq!(integer(Some(Value::Int(-1))), Err(BROKEN));
        assert_eq!(text(Some(Value::BulkString(vec![0xff]))), Err(BROKEN));
        assert_eq!(bytes(None), Err(BROKEN));
        assert!(array(Value::Nil).is_err());
    }
}
