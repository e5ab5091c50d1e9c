//! The trace of a request (W3C Trace Context): a client's is handed on unchanged, and a request without one gets one.
//!
//! Pure but for the random numbers. A proxy that hands it on records no spans, so it is no parent of any.

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of version 00: `00-{32 digits}-{16 digits}-{2 digits}`.
const LENGTH: usize = 55;

/// The id of a trace, in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it has been checked to be digits")
    }
}

/// The trace of a request with this head, which names it afterwards. `random` gives the id of a new trace and of its first
/// span.
pub fn continue_or_begin(headers: &mut HeaderMap, random: impl FnOnce() -> (u128, u64)) -> TraceId {
    let mut given = headers.get_all(&TRACEPARENT).iter();
    if let (Some(only), None) = (given.next(), given.next())
        && let Some(id) = parse(only.as_bytes())
    {
        return id;
    }
    // Without a valid parent, what vendors noted about it has no meaning (section 4.3).
    headers.remove(&TRACESTATE);
    let (trace, span) = random();
    let mut id = [0; 32];
    hexadecimal(&mut id, &trace.max(1).to_be_bytes());
    // Nobody has decided yet whether it is recorded (section 2.2.3.2.1).
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    value[3..35].copy_from_slice(&id);
    hexadecimal(&mut value[36..52], &span.max(1).to_be_bytes());
    headers.insert(TRACEPARENT, HeaderValue::from_bytes(&value).expect("digits and dashes"));
    TraceId(id)
}

/// Writes two digits for each byte.
fn hexadecimal(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (digits, byte) in out.chunks_exact_mut(2).zip(bytes) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// The trace id of a valid `traceparent`. Later versions may append fields to those of version 00.
fn parse(value: &[u8]) -> Option<TraceId> {
    let (fields, rest) = value.split_at_checked(LENGTH)?;
    let is_digits = |field: &[u8]| field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |field: &[u8]| field.iter().all(|byte| *byte == b'0');
    let [version, trace, span, flags] = [&fields[..2], &fields[3..35], &fields[36..52], &fields[53..]];
    let is_separated = [2, 35, 52].iter().all(|at| fields[*at] == b'-');
    let is_whole = match version {
        b"ff" => false,
        b"00" => rest.is_empty(),
        _ => rest.is_empty() || rest.starts_with(b"-"),
    };
    let is_valid = is_separated
        && is_whole
        && [version, trace, span, flags].into_iter().all(is_digits)
        && !is_zero(trace)
        && !is_zero(span);
    is_valid.then(|| TraceId(trace.try_into().expect("32 bytes were cut out")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn handed_on(lines: &[&str]) -> (String, Vec<String>, bool) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRACEPARENT, line.parse().unwrap());
        }
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        let id = continue_or_begin(&mut headers, || (0xab, 0xcd));
        let parents = headers.get_all(TRACEPARENT).iter();
        let parents = parents.map(|value| value.to_str().unwrap().to_owned()).collect();
        (id.as_str().to_owned(), parents, headers.contains_key(TRACESTATE))
    }

    #[test]
    fn a_valid_trace_is_handed_on_unchanged() {
        let later = format!("01{}-more", &VALID[2..]);
        for line in [VALID, &later, &format!("cc{}", &VALID[2..])] {
            assert_eq!(handed_on(&[line]), (TRACE.to_owned(), vec![line.to_owned()], true));
        }
    }

    #[test]
    fn without_a_valid_trace_a_new_one_begins_and_the_state_of_the_old_one_goes() {
        let new = "00-000000000000000000000000000000ab-00000000000000cd-00";
        let upper = VALID.to_uppercase();
        for lines in [
            &[][..],
            &["x"],
            &[&upper],
            &[VALID, VALID],
            &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"],
            &["01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x"],
            &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
            &["00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"],
        ] {
            assert_eq!(handed_on(lines), (new[3..35].to_owned(), vec![new.to_owned()], false), "{lines:?}");
        }
    }
}
