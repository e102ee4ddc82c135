//! Project Wycheproof's vectors (Apache-2.0) for every algorithm that a token may have: signatures that a verifier has once taken
//! although nobody made them, and good ones that it must take.

use wycheproof::TestResult::{self, Acceptable, Invalid, Valid};
use wycheproof::{ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

use super::*;

/// How many of an algorithm's vectors are good and were taken, and how many are bad and were refused.
#[derive(Default)]
struct Tally {
    good: usize,
    bad: usize,
}

impl Tally {
    fn judge(&mut self, name: &str, expected: TestResult, taken: bool) {
        match expected {
            Valid => self.good += 1,
            Invalid => self.bad += 1,
            // A library may do as it likes, such as with a missing NULL of 1993.
            Acceptable => return,
        }
        assert_eq!(taken, expected == Valid, "{name}");
    }
}

fn public(algorithm: Algorithm, der: &[u8]) -> Verifier {
    Verifier::from_public(algorithm, der).unwrap_or_else(|unfit| panic!("{algorithm:?}: {unfit:?}"))
}

#[test]
fn hmac_takes_whole_tags_only() {
    let mut tally = Tally::default();
    for (algorithm, name) in [
        (HS256, mac::TestName::HmacSha256),
        (HS384, mac::TestName::HmacSha384),
        (HS512, mac::TestName::HmacSha512),
    ] {
        for group in mac::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let Ok(verifier) = Verifier::from_secret(algorithm, &test.key) else {
                    continue;
                };
                let is_whole = test.tag.len() == algorithm.hmac().unwrap().digest_algorithm().output_len();
                let expected = if is_whole { test.result } else { Invalid };
                let taken = verifier.verify(&test.msg, &test.tag);
                tally.judge(&format!("{name:?} {}: {}", test.tc_id, test.comment), expected, taken);
            }
        }
    }
    assert!(tally.good >= 30 && tally.bad >= 200, "{} and {}", tally.good, tally.bad);
}

#[test]
fn curves_take_plain_signatures_only() {
    let mut tally = Tally::default();
    for (algorithm, name) in [
        (ES256, ecdsa::TestName::EcdsaSecp256r1Sha256P1363),
        (ES384, ecdsa::TestName::EcdsaSecp384r1Sha384P1363),
    ] {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let verifier = public(algorithm, &group.der);
            for test in group.tests {
                let taken = verifier.verify(&test.msg, &test.sig);
                tally.judge(
                    &format!("{name:?} {}: {}", test.tc_id, test.comment),
                    test.result,
                    taken,
                );
            }
        }
    }
    // The same as DER: no JSON web signature, however good.
    for (algorithm, name) in [
        (ES256, ecdsa::TestName::EcdsaSecp256r1Sha256),
        (ES384, ecdsa::TestName::EcdsaSecp384r1Sha384),
    ] {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let verifier = public(algorithm, &group.der);
            for test in group.tests {
                let taken = verifier.verify(&test.msg, &test.sig);
                tally.judge(&format!("{name:?} {}: {}", test.tc_id, test.comment), Invalid, taken);
            }
        }
    }
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let verifier = public(EdDSA, &group.der);
        for test in group.tests {
            let taken = verifier.verify(&test.msg, &test.sig);
            tally.judge(&format!("Ed25519 {}: {}", test.tc_id, test.comment), test.result, taken);
        }
    }
    assert!(
        tally.good >= 300 && tally.bad >= 1000,
        "{} and {}",
        tally.good,
        tally.bad
    );
}

#[test]
fn rsa_looks_at_all_of_the_padding() {
    use rsa_pkcs1_verify::TestName::*;
    let mut tally = Tally::default();
    for (algorithm, name) in [
        (RS256, Rsa2048Sha256),
        (RS384, Rsa2048Sha384),
        (RS512, Rsa2048Sha512),
        (RS256, Rsa3072Sha256),
        (RS384, Rsa3072Sha384),
        (RS512, Rsa3072Sha512),
        (RS256, Rsa4096Sha256),
        (RS384, Rsa4096Sha384),
        (RS512, Rsa4096Sha512),
    ] {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let verifier = public(algorithm, &group.der);
            for test in group.tests {
                let taken = verifier.verify(&test.msg, &test.sig);
                tally.judge(
                    &format!("{name:?} {}: {}", test.tc_id, test.comment),
                    test.result,
                    taken,
                );
            }
        }
    }
    assert!(
        tally.good >= 50 && tally.bad >= 1500,
        "{} and {}",
        tally.good,
        tally.bad
    );
}

#[test]
fn pss_takes_salts_of_the_hash_s_length_only() {
    use rsa_pss_verify::TestName::*;
    let mut tally = Tally::default();
    for (algorithm, name, is_jose) in [
        (PS256, RsaPss2048Sha256Mgf1SaltLen32, true),
        (PS384, RsaPss2048Sha384Mgf1SaltLen48, true),
        (PS256, RsaPss3072Sha256Mgf1SaltLen32, true),
        (PS256, RsaPss4096Sha256Mgf1SaltLen32, true),
        (PS384, RsaPss4096Sha384Mgf1SaltLen48, true),
        (PS512, RsaPss4096Sha512Mgf1SaltLen64, true),
        // RFC 7518 section 3.5: the salt is as long as the hash.
        (PS512, RsaPss4096Sha512Mgf1SaltLen32, false),
    ] {
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let verifier = public(algorithm, &group.der);
            for test in group.tests {
                let expected = if is_jose { test.result } else { Invalid };
                let taken = verifier.verify(&test.msg, &test.sig);
                tally.judge(&format!("{name:?} {}: {}", test.tc_id, test.comment), expected, taken);
            }
        }
    }
    assert!(tally.good >= 50 && tally.bad >= 300, "{} and {}", tally.good, tally.bad);
}
