//! A CA for tests.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use crate::config::{TlsDetails, TlsVersion, TransportSecurity};

/// Signs certificates and takes them back, in a folder of its own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// The files of a certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: tempfile::tempdir().unwrap() };
        std::fs::write(authority.ca(), authority.pem()).unwrap();
        authority
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The file of its own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.crt")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate for localhost with this common name and serial number.
    pub(crate) fn sign(&self, common_name: &str, serial: u64) -> Identity {
        self.sign_for(&["localhost"], common_name, serial)
    }

    /// Signs a certificate for these hosts and addresses, into files that are named by its number.
    pub(crate) fn sign_for(&self, names: &[&str], common_name: &str, serial: u64) -> Identity {
        let identity =
            Identity { certificate: self.path(&format!("{serial}.crt")), key: self.path(&format!("{serial}.key")) };
        self.sign_into(&identity, names, common_name, serial);
        identity
    }

    /// The same, into the files of another certificate.
    pub(crate) fn sign_into(&self, identity: &Identity, names: &[&str], common_name: &str, serial: u64) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(&identity.certificate, certificate.pem()).unwrap();
        std::fs::write(&identity.key, key.serialize_pem()).unwrap();
    }

    /// The list of revoked certificates.
    pub(crate) fn revoke(&self, serials: &[u64]) -> PathBuf {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).unwrap();
        std::fs::write(self.path("revoked.crl"), list.der()).unwrap();
        self.path("revoked.crl")
    }

    /// What a member is told that shows this certificate, and wants one of this authority.
    pub(crate) fn security(&self, identity: &Identity) -> TransportSecurity {
        TransportSecurity {
            cert_file: text(&identity.certificate),
            key_file: text(&identity.key),
            trusted_ca_file: text(&self.ca()),
            ..TransportSecurity::default()
        }
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Versions and suites where no flag says anything of them.
pub(crate) fn details() -> TlsDetails {
    TlsDetails {
        cipher_suites: Vec::new(),
        min_version: TlsVersion::Tls12,
        max_version: None,
        self_signed_cert_validity_years: 1,
    }
}
