//! The one hash of keys and backends.
//!
//! It must give the same value in every process, on every machine and in every version, because two balancers in
//! front of the same backends should send a key to the same one. Therefore it has no secret seed: someone who
//! chooses keys on purpose can aim many of them at one backend. Where that matters, `bounded_load` limits the harm.

use std::net::{IpAddr, SocketAddr};

/// Odd constants with evenly mixed bits (digits of pi, as in wyhash and its kin).
const A: u64 = 0x243f_6a88_85a3_08d3;
const B: u64 = 0x1319_8a2e_0370_7345;

/// Hash of a key. Stable across processes, machines and versions.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut state = A ^ (bytes.len() as u64).wrapping_mul(B);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    mix(mix(state, u64::from_le_bytes(last)), B)
}

/// Mixes two words so that every bit of either moves about half of the result's bits.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    // A product folded once leaves some input bits weak; the rotation keeps what a factor of zero would swallow.
    let once = fold(a ^ A, b ^ B).wrapping_add(a.rotate_left(32) ^ b);
    fold(once ^ B, A)
}

/// Mixes two words that are each well mixed already: cheaper, for many of them in a row.
pub(crate) fn remix(a: u64, b: u64) -> u64 {
    fold(a ^ b, A)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// What stands for a backend in every hash table: its address and nothing of its place in the list, so that
/// reordering a config moves no key.
pub(crate) fn backend_seed(address: SocketAddr) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    };
    mix(ip, u64::from(address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A changed value here would move every client of every running cluster to another backend.
    #[test]
    fn values_never_change() {
        let got = [&b""[..], b"a", b"10.0.0.1", b"a longer key than eight bytes"].map(hash);
        assert_eq!(
            got,
            [
                2_600_502_124_677_646_111,
                3_852_492_888_209_196_789,
                14_336_288_119_828_138_949,
                17_593_045_184_438_388_679
            ]
        );
        assert_eq!(
            backend_seed("10.0.0.1:80".parse().unwrap()),
            6_885_981_896_952_301_013
        );
    }

    /// One flipped input bit flips 20 to 44 of 64 output bits on average: keys that look alike spread.
    #[test]
    fn one_bit_moves_about_half_of_the_result() {
        for bit in 0..64 {
            let mut flipped = 0;
            for i in 0..256u64 {
                let key = i.wrapping_mul(0x1234_5678_9abc_def1);
                let other = key ^ (1 << bit);
                flipped += (hash(&key.to_le_bytes()) ^ hash(&other.to_le_bytes())).count_ones();
            }
            let average = flipped / 256;
            assert!((28..=36).contains(&average), "bit {bit}: {average}");
        }
    }

    #[test]
    fn trailing_zeros_and_ports_count() {
        assert_ne!(hash(b"a"), hash(b"a\0"));
        let seed = |text: &str| backend_seed(text.parse().unwrap());
        assert_ne!(seed("10.0.0.1:80"), seed("10.0.0.1:81"));
        assert_ne!(seed("10.0.0.1:80"), seed("10.0.0.2:80"));
        assert_ne!(seed("[::1]:80"), seed("[::2]:80"));
    }
}
