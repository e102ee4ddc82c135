//! A public key out of a PEM file.

use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::keys::Flaw;

/// The DER bytes of the first public key in `file`: `PUBLIC KEY`, `RSA PUBLIC KEY` or the key of a `CERTIFICATE`.
pub(super) fn public_key(file: &[u8]) -> Result<Vec<u8>, Flaw> {
    for block in Pem::iter_from_buffer(file) {
        let block = block.map_err(|_| not_pem())?;
        match block.label.as_str() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => return Ok(block.contents),
            "CERTIFICATE" => return certificate_key(&block.contents),
            label if label.contains("PRIVATE KEY") => {
                let remedy = "give its public half: openssl pkey -in private.pem -pubout -out public.pem";
                return Err(Flaw::new("the file holds a private key", remedy));
            }
            // EC files begin with a block of parameters.
            _ => {}
        }
    }
    Err(not_pem())
}

fn certificate_key(der: &[u8]) -> Result<Vec<u8>, Flaw> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|_| Flaw::new("the certificate in the file is damaged", "copy the file again"))?;
    Ok(certificate.public_key().raw.to_vec())
}

fn not_pem() -> Flaw {
    Flaw::new(
        "the file holds no PEM block PUBLIC KEY or CERTIFICATE",
        "openssl pkey -in private.pem -pubout -out public.pem",
    )
}
