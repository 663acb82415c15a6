//! What is verified, and with which keys: one [`TlsClient`] per server, shared by all its links, so
//! that a session once begun is resumed over the whole pool.
//!
//! Certificate and host name are always verified; there is no switch to turn that off. Trusted are the
//! system's roots, and besides them what `ca_file` holds.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage,
    ProtocolVersion, RootCertStore, SignatureScheme,
};

use super::error::{NetError, TlsTrouble};
use crate::job::TlsSpec;
use crate::wire::sasl::ChannelBinding;

/// What a server's TLS is verified with, and its sessions.
#[derive(Debug, Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// Reads the files that `spec` names, and the system's roots when they are first needed.
    /// `host` is an A-label host name or an IP address.
    pub fn new(spec: &TlsSpec, host: &str) -> Result<TlsClient, NetError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            NetError::Setting(format!("`{host}` is no host name that a certificate could have"))
        })?;
        let mut provider = provider::default_provider();
        // Ten rounds instead of fourteen for each block, on both sides, and nobody breaks either. Most
        // servers take the client's order.
        provider
            .cipher_suites
            .sort_by_key(|suite| !suite.suite().as_str().is_some_and(|name| name.contains("AES_128_GCM")));
        let provider = Arc::new(provider);
        let versions: &[_] = if spec.only_tls13 {
            &[&rustls::version::TLS13]
        } else {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        };
        let setting = |error: Error| NetError::Setting(format!("TLS cannot be set up: {error}"));
        let verifier = Arc::new(Verifier::new(spec.ca_file.as_deref(), &provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(setting)?
            // Not a way around verification: the verifier below is webpki's, which refuses nothing less.
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &spec.client_cert {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(certificates("client_cert", cert)?, private_key(key)?)
                .map_err(|error| NetError::File {
                    what: "client_cert",
                    path: cert.clone(),
                    reason: match error {
                        Error::InconsistentKeys(_) => {
                            format!("does not belong to the key in {}", key.display())
                        }
                        other => other.to_string(),
                    },
                })?,
        };
        Ok(TlsClient { config: Arc::new(config), name })
    }

    /// Begins a session.
    pub(super) fn begin(&self) -> Result<ClientConnection, Error> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone())
    }
}

/// What ties a login to this session: `tls-exporter` for TLS 1.3; for TLS 1.2, where that needs an
/// extension which we cannot see, `tls-server-end-point`.
pub(super) fn channel_binding(connection: &ClientConnection) -> Option<ChannelBinding> {
    if connection.protocol_version()? == ProtocolVersion::TLSv1_3 {
        let data =
            connection.export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok()?;
        return Some(ChannelBinding { kind: "tls-exporter", data: data.to_vec() });
    }
    let certificate = connection.peer_certificates()?.first()?;
    Some(ChannelBinding { kind: "tls-server-end-point", data: end_point(certificate)? })
}

/// The hash of a certificate by the hash of its own signature; SHA-256 in place of MD5 and SHA-1 (RFC
/// 5929 §4.1).
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = der::signature_algorithm(certificate)?;
    let hash = match algorithm {
        // 1.2.840.113549.1.1.{4,5,11,12,13}: RSA with MD5, SHA-1, SHA-256, SHA-384, SHA-512.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4 | 5 | 11] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] => &digest::SHA512,
        // 1.2.840.10045.4.1 and 1.2.840.10045.4.3.{2,3,4}: ECDSA.
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => &digest::SHA512,
        // Undefined for the others (RSASSA-PSS carries its hash in parameters, Ed25519 has none).
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// The system's roots, read once for the process: it takes some milliseconds.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // One unreadable certificate among a hundred is no reason to trust none of them.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    }))
}

/// The system's roots, and besides them what `ca_file` holds, for a client that verifies by itself.
pub(super) fn trusted(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let mut all = rustls_native_certs::load_native_certs().certs;
    if let Some(path) = ca_file {
        all.extend(certificates("ca_file", path)?);
    }
    Ok(all)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let fail = |reason: String| NetError::File { what, path: path.to_owned(), reason };
    let text = fs::read(path).map_err(|error| fail(error.to_string()))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(format!("is not PEM: {error}")))?;
    match found.is_empty() {
        true => Err(fail("holds no certificate (-----BEGIN CERTIFICATE-----)".to_owned())),
        false => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, NetError> {
    let fail = |reason: String| NetError::File { what: "client_key", path: path.to_owned(), reason };
    let text = fs::read(path).map_err(|error| fail(error.to_string()))?;
    // What is wrong with a key is not quoted: it might quote the key.
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| fail("holds no private key we can use (PEM, without a passphrase)".to_owned()))
}

/// webpki's verification; besides, a certificate that stands itself in `ca_file` is trusted for its own
/// names and time, though it calls itself a CA. `openssl req -x509` makes such certificates, many small
/// servers have one, and webpki alone never accepts them as a server's.
#[derive(Debug)]
struct Verifier {
    chain: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(ca_file: Option<&Path>, provider: &Arc<CryptoProvider>) -> Result<Verifier, NetError> {
        let mut roots = system_roots();
        let mut named = Vec::new();
        if let Some(path) = ca_file {
            named = certificates("ca_file", path)?;
            let store = Arc::make_mut(&mut roots);
            for certificate in &named {
                store.add(certificate.clone()).map_err(|error| NetError::File {
                    what: "ca_file",
                    path: path.to_owned(),
                    reason: format!("a certificate in it cannot be used: {error}"),
                })?;
            }
        }
        if roots.is_empty() {
            return Err(NetError::Setting(
                "no trusted certificates were found on this system: install the package ca-certificates, or name a \
                 `ca_file`"
                    .to_owned(),
            ));
        }
        let chain = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
            .build()
            .map_err(|error| NetError::Setting(format!("TLS cannot be set up: {error}")))?;
        Ok(Verifier { chain, named })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.named.iter().any(|certificate| certificate.as_ref() == end_entity.as_ref()) {
            match der::validity(end_entity) {
                Some((from, _)) if now.as_secs() < from => {
                    let not_before = UnixTime::since_unix_epoch(std::time::Duration::from_secs(from));
                    return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
                }
                Some((_, until)) if now.as_secs() > until => {
                    let not_after = UnixTime::since_unix_epoch(std::time::Duration::from_secs(until));
                    return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
                }
                Some(_) => {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                    return Ok(ServerCertVerified::assertion());
                }
                None => return Err(CertificateError::BadEncoding.into()),
            }
        }
        self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// What a failure of rustls means for a person. `implicit`: TLS was to begin with the first byte.
pub(super) fn trouble(error: &Error, handshaking: bool, implicit: bool) -> TlsTrouble {
    match error {
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsTrouble::Untrusted,
            CertificateError::NotValidForNameContext { expected, presented } => TlsTrouble::WrongHostName {
                expected: expected.to_str().into_owned(),
                names: presented.iter().map(|name| plain_name(name)).collect(),
            },
            CertificateError::Expired => TlsTrouble::Expired { at: None },
            CertificateError::ExpiredContext { not_after, .. } => {
                TlsTrouble::Expired { at: Some(not_after.as_secs()) }
            }
            CertificateError::NotValidYet => TlsTrouble::NotYetValid { at: None },
            CertificateError::NotValidYetContext { not_before, .. } => {
                TlsTrouble::NotYetValid { at: Some(not_before.as_secs()) }
            }
            CertificateError::Revoked => TlsTrouble::Revoked,
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                TlsTrouble::Certificate(
                    "it is a CA's own certificate, not a server's; to trust exactly this one, put it into `ca_file`"
                        .to_owned(),
                )
            }
            other => TlsTrouble::Certificate(other.to_string()),
        },
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) if handshaking => {
            if implicit {
                TlsTrouble::NotTls
            } else {
                TlsTrouble::StillPlain
            }
        }
        Error::AlertReceived(alert) => match alert {
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity => TlsTrouble::Version(alert_words(*alert)),
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA => TlsTrouble::ClientCertificate(alert_words(*alert)),
            other => TlsTrouble::Refused(alert_words(*other)),
        },
        Error::PeerIncompatible(what) => TlsTrouble::Version(format!("{what:?}")),
        other => TlsTrouble::Other(other.to_string()),
    }
}

/// webpki shows a name as `DnsName("a.example")` or `IpAddress(…)`; only what is inside is for people.
fn plain_name(name: &str) -> String {
    match (name.find('"'), name.rfind('"')) {
        (Some(start), Some(end)) if start < end => name[start + 1..end].to_owned(),
        _ => match (name.find('('), name.rfind(')')) {
            (Some(start), Some(end)) if start < end => name[start + 1..end].to_owned(),
            _ => name.to_owned(),
        },
    }
}

/// `HandshakeFailure` → `handshake failure`
fn alert_words(alert: AlertDescription) -> String {
    let name = alert.as_str().map(str::to_owned).unwrap_or_else(|| format!("{alert:?}"));
    let mut words = String::with_capacity(name.len() + 4);
    let mut before = '_';
    for letter in name.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
        before = letter;
    }
    words
}

/// The few fields of a certificate (X.509, RFC 5280 §4.1) that webpki keeps to itself.
mod der {
    /// The contents of the first element if its tag is `tag`, and what follows it.
    fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (&found, rest) = bytes.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            short if short < 0x80 => (usize::from(short), rest),
            long => {
                let count = usize::from(long & 0x7f);
                if count == 0 || count > 4 {
                    return None;
                }
                let (digits, rest) = rest.split_at_checked(count)?;
                (digits.iter().fold(0usize, |sum, &digit| sum << 8 | usize::from(digit)), rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        (found == tag).then_some((content, rest))
    }

    const SEQUENCE: u8 = 0x30;

    /// The object identifier of the algorithm that the certificate is signed with.
    pub(super) fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
        let (outer, _) = element(SEQUENCE, certificate)?;
        let (_, rest) = element(SEQUENCE, outer)?;
        let (algorithm, _) = element(SEQUENCE, rest)?;
        Some(element(0x06, algorithm)?.0)
    }

    /// From when until when it is valid, in seconds since 1970.
    pub(super) fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
        let (outer, _) = element(SEQUENCE, certificate)?;
        let (tbs, _) = element(SEQUENCE, outer)?;
        let rest = element(0xa0, tbs).map_or(tbs, |(_, rest)| rest); // version
        let (_, rest) = element(0x02, rest)?; // serialNumber
        let (_, rest) = element(SEQUENCE, rest)?; // signature
        let (_, rest) = element(SEQUENCE, rest)?; // issuer
        let (validity, _) = element(SEQUENCE, rest)?;
        let (from, rest) = time(validity)?;
        let (until, _) = time(rest)?;
        Some((from, until))
    }

    /// UTCTime `YYMMDDHHMMSSZ` or GeneralizedTime `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
    fn time(bytes: &[u8]) -> Option<(u64, &[u8])> {
        let (digits, year_width, rest) = match element(0x17, bytes) {
            Some((digits, rest)) => (digits, 2, rest),
            None => element(0x18, bytes).map(|(digits, rest)| (digits, 4, rest))?,
        };
        let text = std::str::from_utf8(digits).ok()?.strip_suffix('Z')?;
        if text.len() != year_width + 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let two = |at: usize| text[at..at + 2].parse::<i8>().ok();
        let year: i16 = text[..year_width].parse().ok()?;
        let year = match year_width {
            2 if year < 50 => 2000 + year,
            2 => 1900 + year,
            _ => year,
        };
        let at = year_width;
        let time = jiff::civil::Date::new(year, two(at)?, two(at + 2)?)
            .ok()?
            .to_datetime(jiff::civil::Time::new(two(at + 4)?, two(at + 6)?, two(at + 8)?, 0).ok()?);
        let moment = jiff::tz::Offset::UTC.to_timestamp(time).ok()?;
        // Before 1970 is before any certificate.
        Some((u64::try_from(moment.as_second()).unwrap_or(0), rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["mail.example.com".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 2, 29);
        params.not_after = rcgen::date_time_ymd(2061, 1, 1);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_tells_its_time_and_its_hash() {
        for (algorithm, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(&digest::SHA256)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(&digest::SHA384)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let certificate = certificate(algorithm);
            // 2020-02-29 as UTCTime, 2061-01-01 as GeneralizedTime.
            assert_eq!(der::validity(&certificate), Some((1_582_934_400, 2_871_763_200)));
            let expected = hash.map(|hash| digest::digest(hash, &certificate).as_ref().to_vec());
            assert_eq!(end_point(&certificate), expected);
            for end in 0..certificate.len() {
                assert_eq!(der::validity(&certificate[..end]), None);
            }
        }
    }

    #[test]
    fn names_and_alerts_are_for_people() {
        for (name, expected) in [
            ("DnsName(\"a.example\")", "a.example"),
            ("IpAddress(127.0.0.1)", "127.0.0.1"),
            ("a.example", "a.example"),
            ("\"", "\""),
        ] {
            assert_eq!(plain_name(name), expected);
        }
        assert_eq!(alert_words(AlertDescription::HandshakeFailure), "handshake failure");
        assert_eq!(alert_words(AlertDescription::UnknownCA), "unknown ca");
    }

    proptest! {
        #[test]
        fn no_certificate_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = der::validity(&bytes);
            let _ = end_point(&bytes);
        }

        #[test]
        fn no_spoilt_certificate_makes_it_panic(at in 0usize..300, byte in any::<u8>()) {
            let mut bytes = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = der::validity(&bytes);
            let _ = end_point(&bytes);
        }
    }
}
