//! What the probe with secrets in its settings shows of them.

/// A number by which a secret is recognized, and from which nobody gets it back.
pub fn sum(secret: &str) -> u64 {
    secret.bytes().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)))
}
