//! The throw-away certificate authority of this machine, and its certificate for localhost.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::state::State;

const AUTHORITY_CERTIFICATE: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const LEAF_CERTIFICATE: &str = "localhost.crt";
const LEAF_KEY: &str = "localhost.key";

const DAY: Duration = Duration::from_secs(86_400);
/// Browsers refuse certificates of more than 398 days.
const LEAF_LIFE: Duration = Duration::from_secs(397 * 86_400);
/// Long, because trusting it is work done by hand.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3_650 * 86_400);
/// Renewed when less than this is left.
const RENEW_WITHIN: Duration = Duration::from_secs(30 * 86_400);

/// A certificate for localhost, 127.0.0.1 and ::1, and the authority that vouches for it.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// PEM of the leaf.
    pub certificate: PathBuf,
    /// PEM of the leaf's private key.
    pub key: PathBuf,
    /// PEM of the authority, for those who want to trust it.
    pub authority: PathBuf,
    /// SHA-256 of the authority's DER, as browsers show it.
    pub fingerprint: String,
}

/// Where `dev` keeps the authority's certificate.
pub fn authority_path(directory: &std::path::Path) -> PathBuf {
    directory.join(AUTHORITY_CERTIFICATE)
}

/// Reuses what the folder holds, or makes it anew: both when the authority is unusable, else only the leaf.
pub fn prepare(state: &State, now: SystemTime) -> anyhow::Result<Certificate> {
    let authority = match Authority::load(state, now) {
        Some(authority) => authority,
        None => Authority::create(state, now)?,
    };
    if !leaf_is_good(state, &authority, now) {
        issue_leaf(state, &authority, now)?;
    }
    Ok(Certificate {
        certificate: state.path(LEAF_CERTIFICATE),
        key: state.path(LEAF_KEY),
        authority: state.path(AUTHORITY_CERTIFICATE),
        fingerprint: fingerprint(&authority.der),
    })
}

struct Authority {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn load(state: &State, now: SystemTime) -> Option<Self> {
        let pem = state.read(AUTHORITY_CERTIFICATE)?;
        let der = der_of(&pem)?;
        let key = KeyPair::from_pem(&state.read(AUTHORITY_KEY)?).ok()?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        // The leaf must not outlive its authority.
        let good = belongs(&parsed, &key) && lasts(&parsed, now, LEAF_LIFE);
        let issuer = Issuer::from_ca_cert_pem(&pem, key).ok()?;
        good.then_some(Self { der, issuer })
    }

    fn create(state: &State, now: SystemTime) -> anyhow::Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot generate a key")?;
        let params = authority_params(now)?;
        let certificate = params
            .self_signed(&key)
            .context("cannot sign the certificate authority")?;
        state.write(AUTHORITY_KEY, &key.serialize_pem())?;
        state.write(AUTHORITY_CERTIFICATE, &certificate.pem())?;
        Ok(Self {
            der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
        })
    }
}

fn authority_params(now: SystemTime) -> anyhow::Result<CertificateParams> {
    let mut params = params(Vec::new(), now, AUTHORITY_LIFE)?;
    // Random, so that a new authority is never taken for the old one in a trust store.
    let name = format!(
        "Conclave development CA {}",
        &uuid::Uuid::new_v4().simple().to_string()[..8]
    );
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Whoever steals the key of a trusted authority can impersonate this machine to itself, and nothing else.
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(Ipv4Addr::LOCALHOST.octets(), 32)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(Ipv6Addr::LOCALHOST.octets(), 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    Ok(params)
}

fn issue_leaf(state: &State, authority: &Authority, now: SystemTime) -> anyhow::Result<()> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let mut params = params(names, now, LEAF_LIFE)?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot generate a key")?;
    let certificate = params
        .signed_by(&key, &authority.issuer)
        .context("cannot sign the certificate for localhost")?;
    state.write(LEAF_KEY, &key.serialize_pem())?;
    state.write(LEAF_CERTIFICATE, &certificate.pem())?;
    Ok(())
}

fn params(names: Vec<String>, now: SystemTime, life: Duration) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("cannot describe the certificate")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let now = asn1(now)
        .context("the clock is outside what a certificate can say")?
        .to_datetime();
    // A clock that is set back a little must not make it invalid; the whole stays within `life`.
    params.not_before = now - DAY;
    params.not_after = now + life.saturating_sub(DAY);
    Ok(params)
}

fn leaf_is_good(state: &State, authority: &Authority, now: SystemTime) -> bool {
    let check = || {
        let der = der_of(&state.read(LEAF_CERTIFICATE)?)?;
        let key = KeyPair::from_pem(&state.read(LEAF_KEY)?).ok()?;
        let (_, leaf) = X509Certificate::from_der(&der).ok()?;
        let (_, issuer) = X509Certificate::from_der(&authority.der).ok()?;
        let ours = leaf.issuer().as_raw() == issuer.subject().as_raw();
        Some(ours && belongs(&leaf, &key) && lasts(&leaf, now, RENEW_WITHIN))
    };
    check().unwrap_or(false)
}

fn belongs(certificate: &X509Certificate<'_>, key: &KeyPair) -> bool {
    certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
}

/// Whether it is valid now and still will be after `more`.
fn lasts(certificate: &X509Certificate<'_>, now: SystemTime, more: Duration) -> bool {
    let at = |time| asn1(time).is_some_and(|time| certificate.validity().is_valid_at(time));
    at(now) && at(now + more)
}

fn asn1(time: SystemTime) -> Option<ASN1Time> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    ASN1Time::from_timestamp(i64::try_from(seconds).ok()?).ok()
}

fn der_of(pem: &str) -> Option<Vec<u8>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    (pem.label == "CERTIFICATE").then_some(pem.contents)
}

fn fingerprint(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests;
