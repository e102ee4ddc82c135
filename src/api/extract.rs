//! Bodies, paths and queries, read as axum does, but refused with a [`Problem`].

use std::fmt;
use std::marker::PhantomData;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::StatusCode;
use http::request::Parts;
use http_body::Body as _;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::problem::Problem;

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// A JSON body, or none at all.
#[derive(Debug)]
pub struct OptionalJson<T>(pub Option<T>);

/// The parameters in the path, percent-decoded.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// The parameters after the `?`.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::<Object<T>>::from_request(request, state).await {
            Ok(axum::Json(Object(value))) => Ok(Self(value)),
            Err(rejection) => Err(unread(&rejection)),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // The door has read the body whole: its length is known.
        if request.body().size_hint().exact() == Some(0) {
            return Ok(Self(None));
        }
        match axum::Json::<Option<Object<T>>>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value.map(|Object(value)| value))),
            Err(rejection) => Err(unread(&rejection)),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        let axum::extract::Path(value) = read.map_err(|rejection: PathRejection| {
            Problem::bad_request(
                rejection.body_text(),
                "write names percent-encoded: team%2F42 for team/42",
            )
        })?;
        Ok(Self(value))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        let axum::extract::Query(value) = read.map_err(|rejection: QueryRejection| {
            Problem::bad_request(
                rejection.body_text(),
                "/api/v1/openapi.json has the parameters of each operation",
            )
        })?;
        Ok(Self(value))
    }
}

/// A struct from a JSON object. Of itself serde takes an array with the fields in their order for one, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        from.deserialize_map(Fields(PhantomData))
    }
}

/// Of a field that is one struct: an object, and no array.
///
/// # Errors
/// It is something else.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Object::deserialize(from).map(|Object(value)| value)
}

/// Of a field that is several: objects.
///
/// # Errors
/// One is something else.
pub fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Object<T>>::deserialize(from)?;
    Ok(objects.into_iter().map(|Object(value)| value).collect())
}

/// A whole number, as JSON Schema has it: `17.0` is one, too.
///
/// # Errors
/// It is none, or below 0.
pub fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match Number::deserialize(from)? {
        Number::Whole(number) => Ok(number),
        Number::Float(number) if number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is whole and in range"
            )]
            let number = number as u64;
            Ok(number)
        }
        Number::Float(number) => Err(D::Error::custom(format_args!("{number} is not a whole number"))),
    }
}

/// As [`whole`]; `null` is none, as a field that is not there.
///
/// # Errors
/// As [`whole`].
pub fn whole_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Whole(#[serde(deserialize_with = "whole")] u64);
    Ok(Option::<Whole>::deserialize(from)?.map(|Whole(number)| number))
}

/// 2^53: up to here a float says exactly which whole number it is.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

#[derive(Deserialize)]
#[serde(untagged, expecting = "a whole number from 0 on")]
enum Number {
    Whole(u64),
    Float(f64),
}

/// What serde says names the field and what was expected there.
fn unread(rejection: &JsonRejection) -> Problem {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            "the body is not said to be JSON",
            "send Content-Type: application/json",
        ),
        JsonRejection::JsonSyntaxError(error) => {
            Problem::bad_request(error.body_text(), "send JSON, in UTF-8, without a byte order mark")
        }
        JsonRejection::JsonDataError(error) => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_body",
            error.body_text(),
            "/api/v1/openapi.json has the shape of each body",
        ),
        other => Problem::bad_request(other.body_text(), "send the body whole"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_no_object() {
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(deny_unknown_fields)]
        struct Kick {
            #[serde(default)]
            ban_s: u64,
        }
        let read = |json: &str| serde_json::from_str::<Object<Kick>>(json).map(|Object(kick)| kick).ok();
        assert_eq!(read("{\"ban_s\":7}"), Some(Kick { ban_s: 7 }));
        assert_eq!(read("{}"), Some(Kick { ban_s: 0 }));
        for bad in ["[]", "[7]", "7", "null", "{\"ban\":7}"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn whole_numbers_and_no_others() {
        let read = |json: &str| {
            let mut json = serde_json::Deserializer::from_str(json);
            whole_or_none(&mut json).map_err(|error| error.to_string())
        };
        assert_eq!(read("17"), Ok(Some(17)));
        assert_eq!(read("17.0"), Ok(Some(17)));
        assert_eq!(read("1e3"), Ok(Some(1_000)));
        assert_eq!(read("-0.0"), Ok(Some(0)));
        assert_eq!(read("18446744073709551615"), Ok(Some(u64::MAX)));
        assert_eq!(read("null"), Ok(None));
        for bad in ["-1", "1.5", "1e300", "\"1\"", "true", "[]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
