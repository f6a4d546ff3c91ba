//! How to leave the frame of one program counter, in one word.
//!
//! Of a row of the unwind tables this is all that a stack trace needs: where the caller's frame begins
//! (the CFA; the return address lies 8 bytes below it, on x86-64 always) and where the caller's frame
//! pointer is. What a row says of other registers is left out, so a frame whose CFA depends on one of
//! those ends the trace.
//!
//! ```text
//! bit 0      3      7     9     13        16               36               50          63
//!   kind   | base | fp  | extra |  -      | CFA offset / 8 | fp offset / 8 |  object   | -
//! ```

/// The DWARF number of the frame pointer register, rbp.
pub const FP: u16 = 6;
/// The DWARF number of the stack pointer register, rsp.
pub const SP: u16 = 7;

/// What a frame is, and so how it is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Kind {
    /// The CFA is a register plus an offset.
    Offset = 1,
    /// The CFA is what lies at a register plus an offset, plus eight times `extra`: functions that align
    /// their stack.
    Indirect = 2,
    /// A linkage table's stub: rsp plus an offset, and 8 more from byte `extra` of each 16 on.
    Stub = 3,
    /// The kernel made the frame for a signal handler to return to.
    Signal = 4,
    /// The outermost frame.
    End = 5,
    /// There is no table for the code: the frame pointer may help.
    Guess = 6,
    /// There is a table, and nothing here understands it.
    Stop = 7,
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum CallerFp {
    /// In the register.
    Same = 0,
    /// On the stack, so many bytes from the CFA.
    AtCfa = 1,
    /// On the stack, so many bytes from where the register points.
    AtFp = 2,
    /// Nowhere that can be told.
    Lost = 3,
}

/// A rule. Zero is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Rule(u64);

const BASE: u32 = 3;
const CALLER_FP: u32 = 7;
const EXTRA: u32 = 9;
const CFA_OFFSET: u32 = 16;
const CFA_BITS: u32 = 20;
const FP_OFFSET: u32 = 36;
const FP_BITS: u32 = 14;
const OBJECT: u32 = 50;
/// Bits of an object's number.
pub const OBJECT_BITS: u32 = 13;

/// `bytes` as a field of `bits` bits that counts words; `None` if it does not fit.
const fn words(bytes: i64, bits: u32) -> Option<u64> {
    let (count, limit) = (bytes >> 3, 1 << (bits - 1));
    if bytes & 7 != 0 || count < -limit || count >= limit {
        return None;
    }
    Some(count.cast_unsigned() & ((1 << bits) - 1))
}

/// Takes [`words`] back.
#[inline(always)]
const fn bytes(word: u64, shift: u32, bits: u32) -> isize {
    (((word << (64 - shift - bits)).cast_signed() >> (64 - bits)) << 3) as isize
}

impl Rule {
    /// A rule that is its kind and nothing else.
    pub const fn plain(kind: Kind) -> Self {
        Self(kind as u64)
    }

    /// A frame whose CFA is reckoned from the register `base`; [`Kind::Stop`] where a number does not fit.
    pub fn frame(kind: Kind, base: u16, offset: i64, extra: u64, fp: CallerFp, fp_offset: i64) -> Self {
        let (Some(offset), Some(fp_offset)) = (words(offset, CFA_BITS), words(fp_offset, FP_BITS)) else {
            return Self::plain(Kind::Stop);
        };
        if base > 15 || extra > 15 {
            return Self::plain(Kind::Stop);
        }
        Self(
            kind as u64
                | u64::from(base) << BASE
                | (fp as u64) << CALLER_FP
                | extra << EXTRA
                | offset << CFA_OFFSET
                | fp_offset << FP_OFFSET,
        )
    }

    /// The rule, marked as one of the loaded object with this number.
    #[must_use]
    pub const fn of_object(self, object: u16) -> Self {
        Self(self.0 & !(((1 << OBJECT_BITS) - 1) << OBJECT) | (object as u64) << OBJECT)
    }

    /// The word that is kept.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// The rule that was kept as this word.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The kind.
    #[inline(always)]
    pub const fn kind(self) -> Kind {
        match self.0 & 7 {
            1 => Kind::Offset,
            2 => Kind::Indirect,
            3 => Kind::Stub,
            4 => Kind::Signal,
            5 => Kind::End,
            6 => Kind::Guess,
            _ => Kind::Stop,
        }
    }

    /// The register that the CFA is reckoned from.
    #[inline(always)]
    pub const fn base(self) -> u16 {
        (self.0 >> BASE & 15) as u16
    }

    /// Where the caller's frame pointer is.
    #[inline(always)]
    pub const fn caller_fp(self) -> CallerFp {
        match self.0 >> CALLER_FP & 3 {
            0 => CallerFp::Same,
            1 => CallerFp::AtCfa,
            2 => CallerFp::AtFp,
            _ => CallerFp::Lost,
        }
    }

    /// The kind's extra number.
    #[inline(always)]
    pub const fn extra(self) -> usize {
        (self.0 >> EXTRA & 15) as usize
    }

    /// Bytes from the base register.
    #[inline(always)]
    pub const fn offset(self) -> isize {
        bytes(self.0, CFA_OFFSET, CFA_BITS)
    }

    /// Bytes to where the caller's frame pointer lies.
    #[inline(always)]
    pub const fn fp_offset(self) -> isize {
        bytes(self.0, FP_OFFSET, FP_BITS)
    }

    /// The object's number, 0 if it has none.
    #[inline(always)]
    pub const fn object(self) -> u16 {
        (self.0 >> OBJECT & ((1 << OBJECT_BITS) - 1)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_comes_back() {
        for (offset, fp_offset) in [(16, -16), (8, 0), (-4_194_304, 65_528), (4_194_296, -65_536)] {
            let rule = Rule::frame(Kind::Indirect, FP, offset, 9, CallerFp::AtFp, fp_offset).of_object(511);
            let rule = Rule::from_word(rule.to_word());
            assert_eq!((rule.kind(), rule.base(), rule.extra()), (Kind::Indirect, FP, 9));
            assert_eq!((rule.offset() as i64, rule.fp_offset() as i64), (offset, fp_offset));
            assert_eq!((rule.caller_fp(), rule.object()), (CallerFp::AtFp, 511));
            assert_eq!(rule.of_object(3).object(), 3);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_understood() {
        let stop = Rule::plain(Kind::Stop);
        assert_eq!(Rule::frame(Kind::Offset, SP, 12, 0, CallerFp::Same, 0), stop);
        assert_eq!(Rule::frame(Kind::Offset, SP, 1 << 40, 0, CallerFp::Same, 0), stop);
        assert_eq!(Rule::frame(Kind::Offset, SP, 8, 0, CallerFp::AtCfa, 1 << 20), stop);
        assert_eq!(Rule::frame(Kind::Offset, 17, 8, 0, CallerFp::Same, 0), stop);
        assert_eq!(Rule::from_word(0).kind(), Kind::Stop);
    }
}
