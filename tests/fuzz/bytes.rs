//! Bytes that were a message once.

use mainstay_tests::dice::Dice;

/// Changes an encoded message: it is cut, bits flip, pieces are doubled, lengths lie.
pub(crate) fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            bytes.push(byte(dice));
        }
        let at = dice.below(bytes.len());
        match dice.below(9) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes[at] = byte(dice),
            3 => bytes.insert(at, byte(dice)),
            4 => drop(bytes.remove(at)),
            5 => {
                let until = (at + 1 + dice.below(20)).min(bytes.len());
                let piece = bytes[at..until].to_vec();
                bytes.extend(piece);
            }
            // A number without an end, and one that is longer than numbers are.
            6 => bytes.extend([0xff; 11]),
            // A field of bytes that is said to be longer than anything.
            7 => bytes.extend([0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]),
            // Groups, which nobody uses, within each other.
            _ => bytes.extend(std::iter::repeat_n(0x0b, 1 + dice.below(300))),
        }
    }
}

/// Bytes of nothing.
pub(crate) fn noise(dice: &mut Dice, longest: usize) -> Vec<u8> {
    (0..dice.below(longest)).map(|_| byte(dice)).collect()
}

fn byte(dice: &mut Dice) -> u8 {
    let [byte, ..] = dice.number().to_le_bytes();
    byte
}
