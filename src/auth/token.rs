//! One token: its form, then its signature, then its times, issuer and audience. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::{Claims, is_user_id};
use super::denied::{Denied, DeniedWord};
use super::json::{self, Flaw};
use super::jwks::Issuer;
use super::keys::{GUEST_PREFIX, Key, Keys, Terms};
use super::{Identity, UnixSeconds, Verified};

/// Longest token that is looked at.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The header's part in the verdict. Everything else in it (`jwk`, `jku`, `x5u`, `x5c`) comes from whoever made the
/// token and is never looked at.
pub(super) struct Header {
    pub alg: String,
    pub kid: Option<String>,
}

/// A token of good form that nobody has vouched for yet.
pub(super) struct Unverified<'t> {
    pub header: Header,
    pub claims: Claims,
    /// What the signature covers: header, dot, claims, as they came.
    signed: &'t [u8],
    signature: Vec<u8>,
}

/// What is asked of every token, whichever key signed it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub leeway: Duration,
    pub require_expiry: bool,
}

impl<'t> Unverified<'t> {
    /// Takes the token apart without believing any of it.
    pub fn parse(token: &'t str, rules: Rules) -> Result<Self, Denied> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Denied::malformed("longer than 8 KiB"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Denied::malformed("not three parts"));
        };
        let decode = |part| {
            URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| Denied::malformed("a part is not base64url without padding"))
        };
        let signed = &token.as_bytes()[..header.len() + 1 + claims.len()];
        let signature = decode(signature)?;
        let header = Header::parse(&decode(header)?).map_err(Denied::malformed)?;
        let claims = json::object(&decode(claims)?).map_err(|flaw| Denied::malformed(claims_flaw(flaw)))?;
        let claims = Claims::from_object(claims).map_err(Denied::malformed)?;
        if rules.require_expiry && claims.exp.is_none() {
            return Err(Denied::malformed("exp is missing"));
        }
        Ok(Self {
            header,
            claims,
            signed,
            signature,
        })
    }

    /// Whether `key` made the signature.
    pub fn is_signed_by(&self, key: &Key) -> bool {
        key.algorithm().as_str() == self.header.alg && key.verify(self.signed, &self.signature)
    }

    /// `exp` and `nbf` against the clock.
    pub fn check_times(&self, rules: Rules, now: UnixSeconds) -> Result<(), Denied> {
        check_times(&self.claims, rules, now)
    }

    /// Whose token it is, if a key vouches for it and it is good now.
    fn user_of(&self, keys: &Keys, rules: Rules, now: UnixSeconds) -> Result<String, Denied> {
        let theirs = keys.issuer(self.claims.iss.as_deref()).map(|issuer| issuer.set());
        let by_url = theirs
            .iter()
            .flat_map(|set| set.candidates(&self.header, Instant::now()));
        let mut signers = (keys.candidates(&self.header).chain(by_url)).filter(|key| self.is_signed_by(key));
        let first = signers.next().ok_or(Denied::new(
            DeniedWord::TokenSignature,
            "no key vouches for the signature",
        ))?;
        self.check_times(rules, now)?;
        // One key may serve several issuers: an entry that fits wins, else the first one's complaint stands.
        let guests = keys.have_session();
        self.user_id(first.terms(), guests).or_else(|complaint| {
            let other = signers.find_map(|key| self.user_id(key.terms(), guests).ok());
            other.ok_or(complaint)
        })
    }

    /// The issuer whose next reading may bring the key of this token, if everything else about it is good.
    pub fn awaited<'k>(&self, keys: &'k Keys, rules: Rules, now: UnixSeconds) -> Option<&'k Arc<Issuer>> {
        let issuer = keys.issuer(self.claims.iss.as_deref())?;
        let may_learn = issuer.may_learn(&self.header.alg, self.header.kid.as_deref());
        let is_good =
            || self.check_times(rules, now).is_ok() && self.user_id(issuer.terms(), keys.have_session()).is_ok();
        (may_learn && is_good()).then_some(issuer)
    }

    /// Issuer and audience as `terms` want them, and a user id that is theirs to give.
    pub fn user_id(&self, terms: &Terms, guests: bool) -> Result<String, Denied> {
        if (terms.issuer.as_deref()).is_some_and(|issuer| self.claims.iss.as_deref() != Some(issuer)) {
            return Err(Denied::new(DeniedWord::TokenIssuer, "iss is not the key's issuer"));
        }
        let wanted = &terms.audience;
        match &self.claims.aud {
            Some(_) if wanted.is_empty() => {
                return Err(Denied::new(
                    DeniedWord::TokenAudience,
                    "aud is present and none is configured for the key",
                ));
            }
            None if !wanted.is_empty() => {
                return Err(Denied::new(DeniedWord::TokenAudience, "aud is missing"));
            }
            Some(aud) if !aud.iter().any(|one| wanted.contains(one)) => {
                return Err(Denied::new(DeniedWord::TokenAudience, "aud is not the key's audience"));
            }
            _ => {}
        }
        let id = [terms.user_prefix.as_str(), &self.claims.sub].concat();
        if !is_user_id(&id) {
            return Err(Denied::malformed(
                "sub with its issuer's prefix is longer than 256 bytes",
            ));
        }
        match (terms.session, id.starts_with(GUEST_PREFIX)) {
            (true, false) => Err(Denied::malformed("a guest's sub does not begin with guest:")),
            (false, true) if guests => Err(Denied::malformed("sub uses the guest prefix")),
            _ => Ok(id),
        }
    }

    fn into_verified(self, user_id: String, rules: Rules) -> Verified {
        let expires_at = self.claims.exp;
        Verified {
            identity: Arc::new(Identity::from_claims(self.claims, user_id)),
            expires_at,
            leeway_s: rules.leeway.as_secs(),
        }
    }
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut map = json::object(bytes).map_err(header_flaw)?;
        if map.contains_key("crit") {
            return Err("the header has crit");
        }
        let mut string = |name: &str| map.remove(name).map(|value| value.as_str().map(str::to_owned));
        let alg = string("alg").flatten().ok_or("the header's alg is not a string")?;
        let kid = match string("kid") {
            Some(None) => return Err("the header's kid is not a string"),
            kid => kid.flatten(),
        };
        Ok(Self { alg, kid })
    }
}

/// `exp` and `nbf` of `claims` against the clock.
pub(super) fn check_times(claims: &Claims, rules: Rules, now: UnixSeconds) -> Result<(), Denied> {
    let leeway = rules.leeway.as_secs();
    if claims.exp.is_some_and(|exp| now >= exp.saturating_add(leeway)) {
        return Err(Denied::new(DeniedWord::TokenExpired, "exp has passed"));
    }
    if claims.nbf.is_some_and(|nbf| now.saturating_add(leeway) < nbf) {
        return Err(Denied::new(DeniedWord::TokenNotYetValid, "nbf has not come"));
    }
    Ok(())
}

/// The whole verdict on `token`.
pub(super) fn verify(token: &str, keys: &Keys, rules: Rules, now: UnixSeconds) -> Result<Verified, Denied> {
    let token = Unverified::parse(token, rules)?;
    let user_id = token.user_of(keys, rules, now)?;
    Ok(token.into_verified(user_id, rules))
}

fn header_flaw(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::NotJson | Flaw::NotAnObject => "the header is not a JSON object",
        Flaw::NameTwice => "the header has a name twice",
        Flaw::TooDeep => "the header is nested deeper than 32",
    }
}

fn claims_flaw(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::NotJson | Flaw::NotAnObject => "the claims are not a JSON object",
        Flaw::NameTwice => "a claim twice",
        Flaw::TooDeep => "the claims are nested deeper than 32",
    }
}

#[cfg(test)]
mod tests;
