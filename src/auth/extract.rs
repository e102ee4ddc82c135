//! Where a request carries its token. The first place that has one counts, and no other place rescues a bad one.

use std::borrow::Cow;

use ::http::header::{AUTHORIZATION, COOKIE};
use ::http::request::Parts;

use super::Place;
use super::denied::{Denied, DeniedWord};

const TWICE: Denied = Denied::malformed("the same place has a token twice");
const EMPTY: Denied = Denied::malformed("the token is empty");
const NOT_TEXT: Denied = Denied::malformed("the token is not text");
const MISSING: Denied = Denied::new(
    DeniedWord::TokenMissing,
    "no token in query, Authorization header or cookie",
);

/// A token and where it was.
pub(super) struct Found<'r> {
    pub token: Cow<'r, str>,
    pub place: Place,
}

/// Query, then bearer header, then the cookie called `cookie`.
pub(super) fn token<'r>(parts: &'r Parts, cookie_name: &str) -> Result<Found<'r>, Denied> {
    if let Some(token) = query(parts)? {
        return Ok(Found {
            token,
            place: Place::Query,
        });
    }
    if let Some(token) = bearer(parts)? {
        return Ok(Found {
            token: token.into(),
            place: Place::Bearer,
        });
    }
    Ok(Found {
        token: cookie(parts, cookie_name)?.into(),
        place: Place::Cookie,
    })
}

/// Query parameter `token`. A `+` stays a plus: this is a URI's query, not a form.
fn query(parts: &Parts) -> Result<Option<Cow<'_, str>>, Denied> {
    let pairs = parts
        .uri
        .query()
        .unwrap_or("")
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs
        .filter(|(name, _)| decode(name).is_ok_and(|name| name == "token"))
        .map(|(_, value)| value);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(TWICE);
    }
    if value.is_empty() {
        Err(EMPTY)
    } else {
        decode(value).map(Some)
    }
}

/// `Authorization: Bearer`. Another scheme is no token, and yet a second header is one too many.
fn bearer(parts: &Parts) -> Result<Option<&str>, Denied> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let Some(value) = headers.next() else {
        return Ok(None);
    };
    if headers.next().is_some() {
        return Err(TWICE);
    }
    let bytes = value.as_bytes();
    let (scheme, token) = bytes.split_at(bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Ok(None);
    }
    let token = token.trim_ascii();
    if token.is_empty() {
        Err(EMPTY)
    } else {
        std::str::from_utf8(token).map(Some).map_err(|_| NOT_TEXT)
    }
}

/// The cookie called `name`, from all Cookie headers: HTTP/2 clients may send one for each cookie.
pub(super) fn cookie<'r>(parts: &'r Parts, name: &str) -> Result<&'r str, Denied> {
    let pairs = parts
        .headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    // Bytes, since another application's cookie may be anything.
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let value = pair.get(equals + 1..).unwrap_or_default();
        (pair[..equals].trim_ascii() == name.as_bytes()).then(|| value.trim_ascii())
    });
    let value = values.next().ok_or(MISSING)?;
    if values.next().is_some() {
        return Err(TWICE);
    }
    let value = value
        .strip_prefix(b"\"")
        .and_then(|inner| inner.strip_suffix(b"\""))
        .unwrap_or(value);
    if value.is_empty() {
        Err(EMPTY)
    } else {
        std::str::from_utf8(value).map_err(|_| NOT_TEXT)
    }
}

/// Percent-decodes.
fn decode(text: &str) -> Result<Cow<'_, str>, Denied> {
    if !text.contains('%') {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let [high, low, after @ ..] = after else {
            return Err(NOT_TEXT);
        };
        let digit = |byte: u8| (byte as char).to_digit(16).ok_or(NOT_TEXT);
        let value = digit(*high)? << 4 | digit(*low)?;
        bytes.push(u8::try_from(value).expect("two hexadecimal digits fit a byte"));
        rest = after;
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| NOT_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::Request;

    fn check(uri: &str, headers: &[(&str, &[u8])], expected: Result<(&str, Place), DeniedWord>) {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let found = token(&parts, "conclave_token");
        let found = found
            .as_ref()
            .map(|found| (&*found.token, found.place))
            .map_err(|denied| denied.word());
        assert_eq!(found, expected, "{uri} {headers:?}");
    }

    const MALFORMED: Result<(&str, Place), DeniedWord> = Err(DeniedWord::TokenMalformed);
    const NONE: Result<(&str, Place), DeniedWord> = Err(DeniedWord::TokenMissing);

    #[test]
    fn the_query_comes_first() {
        let other: &[(&str, &[u8])] = &[("authorization", b"Bearer h"), ("cookie", b"conclave_token=c")];
        check("/ws?token=q", other, Ok(("q", Place::Query)));
        check("/ws?a=b&token=q.r-s_t&c", &[], Ok(("q.r-s_t", Place::Query)));
        check("/ws?%74oken=q%2Er", &[], Ok(("q.r", Place::Query)));
        check("/ws?token=a+b", &[], Ok(("a+b", Place::Query)));
        check("/ws?token=a=b", &[], Ok(("a=b", Place::Query)));
        check("/ws?token=", other, MALFORMED);
        check("/ws?token", other, MALFORMED);
        check("/ws?token=a&token=a", &[], MALFORMED);
        check("/ws?token=a&%74oken=b", &[], MALFORMED);
        check("/ws?token=%", &[], MALFORMED);
        check("/ws?token=%f", &[], MALFORMED);
        check("/ws?token=%zz", &[], MALFORMED);
        check("/ws?token=%ff", &[], MALFORMED);
        check("/ws?token=%+1", &[], MALFORMED);
        check("/ws?Token=q&tokens=r", &[], NONE);
    }

    #[test]
    fn then_the_header() {
        let cookie: (&str, &[u8]) = ("cookie", b"conclave_token=c");
        check(
            "/ws",
            &[("authorization", b"Bearer h"), cookie],
            Ok(("h", Place::Bearer)),
        );
        check("/ws", &[("authorization", b"bEARER   h ")], Ok(("h", Place::Bearer)));
        check("/ws", &[("authorization", b"Bearer"), cookie], MALFORMED);
        check("/ws", &[("authorization", b"Bearer "), cookie], MALFORMED);
        check("/ws", &[("authorization", b"Bearer \xff"), cookie], MALFORMED);
        check(
            "/ws",
            &[("authorization", b"Bearer a"), ("authorization", b"Bearer a")],
            MALFORMED,
        );
        check(
            "/ws",
            &[("authorization", b"Basic a"), ("authorization", b"Bearer a")],
            MALFORMED,
        );
        check(
            "/ws",
            &[("authorization", b"Basic a"), cookie],
            Ok(("c", Place::Cookie)),
        );
        check("/ws", &[("authorization", b"Bearerx a")], NONE);
        check("/ws", &[("authorization", b"")], NONE);
    }

    #[test]
    fn then_the_cookie() {
        check(
            "/ws",
            &[("cookie", b"a=\xff; conclave_token=c; b=d")],
            Ok(("c", Place::Cookie)),
        );
        check(
            "/ws",
            &[("cookie", b"a=b"), ("cookie", b"conclave_token=c")],
            Ok(("c", Place::Cookie)),
        );
        check("/ws", &[("cookie", b"conclave_token=\"c\"")], Ok(("c", Place::Cookie)));
        check("/ws", &[("cookie", b"conclave_token=a=b")], Ok(("a=b", Place::Cookie)));
        check("/ws", &[("cookie", b"conclave_token=")], MALFORMED);
        check("/ws", &[("cookie", b"conclave_token")], MALFORMED);
        check("/ws", &[("cookie", b"conclave_token=\"\"")], MALFORMED);
        check("/ws", &[("cookie", b"conclave_token=\xff")], MALFORMED);
        check("/ws", &[("cookie", b"conclave_token=c; conclave_token=c")], MALFORMED);
        check(
            "/ws",
            &[("cookie", b"conclave_token=c"), ("cookie", b"conclave_token=d")],
            MALFORMED,
        );
        check("/ws", &[("cookie", b"Conclave_token=c; xconclave_token=d")], NONE);
        check("/ws", &[], NONE);
    }
}
