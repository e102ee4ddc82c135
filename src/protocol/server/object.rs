//! Writes one JSON object, field by field, straight into the frame.

use crate::protocol::client::Ref;

/// An object that is being written. A field whose value is `None` is left out.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Object<'o> {
    pub(super) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    /// `kind` is a word of the protocol, so there is nothing in it to escape.
    pub(super) fn typed(out: &'o mut Vec<u8>, kind: &'static str) -> Self {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        Self { out }
    }

    pub(super) fn json<'v>(self, name: &'static str, json: impl Into<Option<&'v str>>) -> Self {
        self.field(name, json.into(), |out, json: &str| {
            out.extend_from_slice(json.as_bytes());
        })
    }

    pub(super) fn reference<'v>(self, reference: impl Into<Option<Ref<'v>>>) -> Self {
        let reference = reference.into();
        self.json("ref", reference.as_ref().map(Ref::as_json))
    }

    pub(super) fn text<'v>(self, name: &'static str, text: impl Into<Option<&'v str>>) -> Self {
        self.field(name, text.into(), push_text)
    }

    pub(super) fn number(self, name: &'static str, number: impl Into<Option<u64>>) -> Self {
        self.field(name, number.into(), push_number)
    }

    pub(super) fn count(self, name: &'static str, count: usize) -> Self {
        self.number(name, count as u64)
    }

    pub(super) fn flag(self, name: &'static str, flag: impl Into<Option<bool>>) -> Self {
        self.json(name, flag.into().map(|flag| if flag { "true" } else { "false" }))
    }

    pub(super) fn array<'v>(self, name: &'static str, items: impl IntoIterator<Item = &'v [u8]>) -> Self {
        self.field(name, Some(items), |out, items| {
            out.push(b'[');
            for (index, item) in items.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(item);
            }
            out.push(b']');
        })
    }

    pub(super) fn object(self, name: &'static str, fill: impl FnOnce(Object<'_>) -> Object<'_>) -> Self {
        self.field(name, Some(fill), |out, fill| fill(Object::open(out)).close())
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// `name` is a word of the protocol, so there is nothing in it to escape.
    #[inline]
    fn field<V>(self, name: &'static str, value: Option<V>, push: impl FnOnce(&mut Vec<u8>, V)) -> Self {
        if let Some(value) = value {
            if self.out.last() != Some(&b'{') {
                self.out.push(b',');
            }
            self.out.push(b'"');
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"\":");
            push(self.out, value);
        }
        self
    }
}

pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string into memory cannot fail");
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] += (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
