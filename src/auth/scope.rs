//! The scopes of a token, for the server API. Asked only of tokens that were found good.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::json;

/// The words of the claim called `claim`: text with spaces between (RFC 8693 section 4.2), or an array of texts, as some
/// issuers have it. A token that nobody has verified may say anything: verify it first.
#[must_use]
pub fn words(token: &str, claim: &str) -> Vec<String> {
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let Some(mut claims) = claims.and_then(|bytes| json::object(&bytes).ok()) else {
        return Vec::new();
    };
    match claims.remove(claim) {
        Some(Value::String(text)) => text
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect(),
        Some(Value::Array(items)) => items
            .into_iter()
            .filter_map(|item| match item {
                Value::String(word) => Some(word),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(claims: &Value, claim: &str, expected: &[&str]) {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        assert_eq!(words(&token, claim), expected, "{claims}");
    }

    #[test]
    fn text_or_array_and_nothing_else() {
        check(
            &json!({"scope": "conclave:publish  read"}),
            "scope",
            &["conclave:publish", "read"],
        );
        check(&json!({"permissions": ["a", 1, "b c"]}), "permissions", &["a", "b c"]);
        check(&json!({"scope": 7}), "scope", &[]);
        check(&json!({"scp": "a"}), "scope", &[]);
        assert!(words("", "scope").is_empty() && words("a.!.b", "scope").is_empty());
    }
}
