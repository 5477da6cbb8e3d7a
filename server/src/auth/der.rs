//! As much of DER as it takes to find a key in what tools write around it.

/// Tags of what is looked into.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;

/// Elements, one behind the other.
#[derive(Clone, Copy)]
pub(super) struct Elements<'a>(pub(super) &'a [u8]);

impl<'a> Elements<'a> {
    /// Takes the next element: its tag and what is in it.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut len = usize::from(first);
        if first & 0x80 != 0 {
            let (bytes, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if bytes.len() > 4 {
                return None;
            }
            len = bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
            rest = behind;
        }
        let (content, behind) = rest.split_at_checked(len)?;
        self.0 = behind;
        Some((tag, content))
    }

    /// Takes the next element, which must be of this kind.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// Looks into the next element, a sequence.
    pub(super) fn enter(&mut self) -> Option<Elements<'a>> {
        self.expect(SEQUENCE).map(Elements)
    }
}

/// The bits of a bit string, which must be whole bytes.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(&[0])
}

/// The key inside a `SubjectPublicKeyInfo`.
pub(super) fn public_key(spki: &[u8]) -> Option<&[u8]> {
    public_key_in(Elements(spki).enter()?)
}

fn public_key_in(mut info: Elements<'_>) -> Option<&[u8]> {
    info.enter()?; // the algorithm
    bits(info.expect(BIT_STRING)?)
}

/// The key inside a certificate.
pub(super) fn certified_key(certificate: &[u8]) -> Option<&[u8]> {
    let mut signed = Elements(certificate).enter()?.enter()?;
    let mut version = signed;
    if version.expect(CONTEXT_0).is_some() {
        signed = version;
    }
    signed.expect(INTEGER)?; // serial number
    for _ in ["signature", "issuer", "validity", "subject"] {
        signed.enter()?;
    }
    public_key_in(signed.enter()?)
}

/// The private number and the public key of an `ECPrivateKey` that says both.
pub(super) fn ec_private_key(sec1: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut key = Elements(sec1).enter()?;
    key.expect(INTEGER)?;
    let private = key.expect(OCTET_STRING)?;
    while let Some((tag, content)) = key.next() {
        if tag == CONTEXT_1 {
            return Some((private, bits(Elements(content).expect(BIT_STRING)?)?));
        }
    }
    None
}

/// Whether this is a sequence that begins with so many numbers, as the keys of RSA do.
pub(super) fn begins_with_integers(der: &[u8], count: usize) -> bool {
    Elements(der).enter().is_some_and(|mut key| (0..count).all(|_| key.expect(INTEGER).is_some()))
}

/// What is wrapped in a PKCS #8 `PrivateKeyInfo`.
pub(super) fn wrapped_private_key(pkcs8: &[u8]) -> Option<&[u8]> {
    let mut info = Elements(pkcs8).enter()?;
    info.expect(INTEGER)?;
    info.enter()?; // the algorithm
    info.expect(OCTET_STRING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_taken_one_by_one() {
        let mut elements = Elements(&[0x02, 1, 5, 0x30, 0x81, 2, 0x04, 0]);
        assert_eq!(elements.expect(INTEGER), Some(&[5][..]));
        assert_eq!(elements.enter().unwrap().next(), Some((OCTET_STRING, &[][..])));
        assert_eq!(elements.next(), None);
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        for bytes in [&[][..], &[0x30], &[0x30, 2, 1], &[0x30, 0x82, 1], &[0x30, 0x85, 0, 0, 0, 0, 0], &[0x30, 0xff]] {
            assert_eq!(Elements(bytes).next(), None, "{bytes:?}");
            let found = (public_key(bytes), certified_key(bytes), wrapped_private_key(bytes));
            assert_eq!(found, (None, None, None));
            assert_eq!(ec_private_key(bytes), None);
        }
    }
}
