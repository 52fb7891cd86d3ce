//! Each thing that can be wrong with a trace, and the whole message that it gives.

use std::cell::Cell;
use std::io::{BufReader, Read};
use std::rc::Rc;

use dirtysim::trace::call::CallRow;
use dirtysim::trace::{DEFAULT_LINE_LIMIT_BYTES, Problem, TraceError, TraceReader};

const HEADER: &str = concat!(
    r#"{"format":"dirtysim-trace","version":1,"kind":"call","#,
    r#""machine":{"arch":"arm64","kernel":"6.12","page_size":4096,"ring_page_offset":64}}"#,
);

/// Reads everything as a trace of kind `call` and gives the first error.
fn error_of(input: &[u8]) -> Box<TraceError> {
    let read = || -> Result<(), Box<TraceError>> {
        for row in TraceReader::new(input, "t.jsonl")?.rows::<CallRow>()? {
            row?;
        }
        Ok(())
    };
    read().expect_err("the input is bad")
}

/// The error of a header followed by these lines.
fn row_error(rows: &str) -> String {
    error_of(format!("{HEADER}\n{rows}").as_bytes()).to_string()
}

/// Asserts an error's message, which names `t.jsonl`, the line, the problem and the help.
fn assert_error(found: &str, line: u64, problem: &str, help: &str) {
    assert_eq!(found, format!("t.jsonl:{line}: {problem}\nhelp: {help}"));
}

#[test]
fn an_empty_file_is_refused() {
    assert_eq!(
        error_of(b"").to_string(),
        "t.jsonl: the file is empty\nhelp: a trace has a header on its first line; \
         `dirtysim import` and `dirtysim run` write one"
    );
}

#[test]
fn a_missing_file_is_refused() {
    let error = TraceReader::open(std::path::Path::new("no/such/file.jsonl")).unwrap_err();
    assert_eq!((error.file.as_str(), error.line), ("no/such/file.jsonl", 0));
    assert!(matches!(error.problem, Problem::Io(_)));
}

#[test]
fn a_line_above_the_limit_is_refused_without_reading_it() {
    struct Counted<R>(R, Rc<Cell<usize>>);
    impl<R: Read> Read for Counted<R> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.set(self.1.get() + count);
            Ok(count)
        }
    }
    let taken = Rc::new(Cell::new(0));
    let long = std::io::repeat(b'a').take(200 << 20);
    let input = BufReader::new(Counted(
        HEADER.as_bytes().chain(&b"\n"[..]).chain(long),
        Rc::clone(&taken),
    ));
    let error = TraceReader::new(input, "t.jsonl")
        .unwrap()
        .rows::<CallRow>()
        .unwrap()
        .next()
        .unwrap()
        .unwrap_err();
    assert_error(
        &error.to_string(),
        2,
        "the line is longer than 1048576 bytes",
        "one event a line, of at most 1048576 bytes",
    );
    assert!(
        taken.get() < DEFAULT_LINE_LIMIT_BYTES + (1 << 16),
        "{} bytes were read",
        taken.get()
    );
}

#[test]
fn a_line_of_exactly_the_limit_is_read() {
    let row = r#"{"vm":1,"call":"close_vm"}"#;
    let trace = format!("{HEADER}\n{row}\n");
    let count = |limit| -> Result<usize, Box<TraceError>> {
        let reader = TraceReader::with_line_limit(trace.as_bytes(), "t.jsonl", limit)?;
        Ok(reader
            .rows::<CallRow>()?
            .collect::<Result<Vec<_>, _>>()?
            .len())
    };
    assert_eq!(count(HEADER.len()), Ok(1));
    let limit_bytes = HEADER.len() - 1;
    assert_eq!(
        count(limit_bytes).unwrap_err().problem,
        Problem::LineTooLong { limit_bytes }
    );
}

#[test]
fn a_truncated_last_line_is_refused() {
    let truncated = |text: &str| {
        assert_error(
            &row_error(text),
            2,
            "the file ends inside this line",
            "the writer was stopped, or the copy is not complete; delete this line or copy the file again",
        );
    };
    let row = r#"{"vm":1,"call":"KVM_RESET_DIRTY_RINGS","result":{"ret":12}}"#;
    for end in 1..row.len() {
        truncated(&row[..end]);
    }
    // The same bytes with a line feed after them are no truncation, but no JSON either.
    assert_error(
        &row_error("{\"vm\":1\n"),
        2,
        "not JSON at byte 7 of the line: EOF while parsing an object",
        "every line is one complete JSON object, ended by a line feed",
    );
    // Inside a character.
    let mut bytes = format!("{HEADER}\n{{\"section\":\"a\",\"title\":\"").into_bytes();
    bytes.extend(&"é".as_bytes()[..1]);
    assert_eq!(error_of(&bytes).problem, Problem::TruncatedLine);
}

#[test]
fn a_last_line_without_line_feed_and_lines_ended_by_crlf_are_read() {
    let trace = format!(
        "{HEADER}\r\n{{\"vm\":1,\"call\":\"close_vm\"}}\r\n{{\"vm\":1,\"call\":\"close_vm\"}}"
    );
    let rows = TraceReader::new(trace.as_bytes(), "t.jsonl")
        .unwrap()
        .rows::<CallRow>()
        .unwrap();
    let lines: Vec<u64> = rows.map(|row| row.unwrap().line).collect();
    assert_eq!(lines, [2, 3]);
}

#[test]
fn invalid_utf8_is_refused() {
    let mut bytes = format!("{HEADER}\n{{\"section\":\"").into_bytes();
    bytes.extend(b"\xff\",\"title\":\"\"}\n");
    assert_error(
        &error_of(&bytes).to_string(),
        2,
        "invalid UTF-8 at byte 13 of the line",
        "a trace is UTF-8 text; save or convert the file as UTF-8",
    );
}

#[test]
fn lines_that_are_no_objects_are_refused() {
    assert_error(
        &row_error("[1]\n"),
        2,
        "the line is JSON, but not an object",
        "write one object, {…}, a line",
    );
    assert_error(
        &row_error("\n"),
        2,
        "the line is blank",
        "every line is one JSON object; delete this one",
    );
    let nested = "[".repeat(100_000);
    assert!(row_error(&format!("{nested}\n")).contains("recursion limit exceeded"));
    assert_error(
        &row_error("{\"vm\":1} {\"vm\":2}\n"),
        2,
        "not JSON at byte 10 of the line: trailing characters",
        "every line is one complete JSON object, ended by a line feed",
    );
}

#[test]
fn a_key_that_appears_twice_is_refused() {
    assert_error(
        &row_error("{\"vm\":1,\"call\":\"close_vm\",\"vm\":2}\n"),
        2,
        "the key `vm` appears twice",
        "keep one of the two",
    );
    assert_error(
        &row_error("{\"vm\":1,\"call\":\"KVM_CREATE_VM\",\"result\":{\"ret\":0,\"ret\":0}}\n"),
        2,
        "the key `ret` appears twice",
        "keep one of the two",
    );
}

#[test]
fn a_first_line_that_is_no_header_is_refused() {
    let example = "the first line is {\"format\":\"dirtysim-trace\",\"version\":1,\"kind\":\"call\",…}; \
                   `dirtysim import` turns other logs into traces";
    for first in ["{}", r#"{"format":"perf"}"#, r#"{"op":"NEW_VM"}"#] {
        let error = error_of(first.as_bytes()).to_string();
        assert_error(
            &error,
            1,
            "this is not the header of a dirtysim trace",
            example,
        );
    }
}

#[test]
fn another_version_or_kind_is_refused() {
    let error = |old, new| error_of(HEADER.replace(old, new).as_bytes()).to_string();
    let versions = "this program reads version 1";
    assert_error(
        &error("\"version\":1", "\"version\":2"),
        1,
        "unknown trace version 2",
        versions,
    );
    assert_error(
        &error("\"version\":1", "\"version\":1.0"),
        1,
        "unknown trace version 1.0",
        versions,
    );
    assert_error(
        &error("\"version\":1,", ""),
        1,
        "unknown trace version (none)",
        versions,
    );
    let kinds = "the kinds are `step`, `call` and `observed`";
    assert_error(
        &error("\"call\"", "\"calls\""),
        1,
        "unknown kind of trace \"calls\"",
        kinds,
    );
    assert_error(
        &error("\"call\"", "\"observed\""),
        1,
        "the trace is of kind `observed`, not `call`",
        "give a trace whose header says `\"kind\":\"call\"`",
    );
}

#[test]
fn a_header_with_wrong_fields_is_refused() {
    let error = |old, new| error_of(HEADER.replace(old, new).as_bytes()).to_string();
    assert_error(
        &error("\"machine\":", "\"machines\":"),
        1,
        "header: unknown field `machines`",
        "expected one of `kind`, `title`, `imported_from`, `sources`, `known`, `machine`, `mutations`, `expect`, `found_by`, `cycle`, `scenario`",
    );
    assert_error(
        &error("arm64", "arm"),
        1,
        "header: unknown variant `arm`",
        "expected one of `x86_64`, `arm64`, `riscv64`, `loongarch64`",
    );
    for size in ["0", "4095", "5000", "2048", "131072"] {
        assert_error(
            &error("4096", size),
            1,
            &format!("header: `page_size` is {size} bytes"),
            "write a power of two from 4096 to 65536",
        );
    }
    assert!(error("\"page_size\":4096,", "").contains("no `machine.page_size`"));
    assert!(error("\"kernel\":\"6.12\",", "").contains("no `machine.kernel`"));
    assert!(error(",\"ring_page_offset\":64", "").contains("no `machine.ring_page_offset`"));
    assert_error(
        &error("\"6.12\"", "null"),
        1,
        "header: `kernel` is null",
        "leave the field out",
    );
    for (header, problem, help) in [
        (
            r#"{"format":"dirtysim-trace","version":1,"kind":"step","cycle":0}"#,
            "header: `cycle` is 0",
            "write how many of the last steps are a cycle, or leave it out",
        ),
        (
            r#"{"format":"dirtysim-trace","version":1,"kind":"observed","cycle":3}"#,
            "header: a `cycle`",
            "only a schedule (kind `step`) has one: leave it out",
        ),
    ] {
        let error = error_of(header.as_bytes()).to_string();
        assert_error(&error, 1, problem, help);
    }
    let bare = r#"{"format":"dirtysim-trace","version":1,"kind":"call"}"#;
    assert_error(
        &error_of(bare.as_bytes()).to_string(),
        1,
        "header: no `machine`",
        "a call trace names the machine that it was recorded on",
    );
}

#[test]
fn an_unknown_call_is_refused_with_the_calls_that_there_are() {
    let error = row_error("{\"vm\":1,\"call\":\"KVM_GET_DIRTY_RING\"}\n");
    assert!(error.starts_with(
        "t.jsonl:2: unknown call \"KVM_GET_DIRTY_RING\"\nhelp: the calls are KVM_CHECK_EXTENSION, "
    ));
    assert!(error.contains("KVM_GET_DIRTY_LOG"));
    assert!(row_error("{\"vm\":1,\"call\":7}\n").contains("unknown call 7"));
    assert_error(
        &row_error("{\"vm\":1}\n"),
        2,
        "the line has neither a `call` nor a `section`",
        "write {\"vm\":1,\"call\":\"KVM_RESET_DIRTY_RINGS\",\"result\":{\"ret\":0}}, say",
    );
}

#[test]
fn an_unknown_or_missing_or_malformed_argument_is_refused() {
    let error = |arguments: &str| {
        row_error(&format!(
            "{{\"vm\":1,\"call\":\"KVM_GET_DIRTY_LOG\",{arguments}\
             \"result\":{{\"ret\":0,\"words_written\":1,\"words\":{{}}}}}}\n"
        ))
    };
    assert_error(
        &error(r#""slot":1,"as_id":0,"first_page":0,"#),
        2,
        "unknown field `first_page`",
        "expected one of `slot`, `as_id`, `bad_pointer`",
    );
    assert!(error(r#""slot":1,"#).contains("missing field `as_id`"));
    assert_error(
        &error(r#""slot":65536,"as_id":0,"#),
        2,
        "invalid value: integer `65536`",
        "expected u16",
    );
    assert_error(
        &error(r#""slot":-1,"as_id":0,"#),
        2,
        "invalid value: integer `-1`",
        "expected u16",
    );
    assert_error(
        &error(r#""slot":1.5,"as_id":0,"#),
        2,
        "invalid type: floating point `1.5`",
        "expected u16",
    );
    assert_error(
        &error(r#""slot":null,"as_id":0,"#),
        2,
        "`slot` is null",
        "leave the field out",
    );
}

#[test]
fn a_row_on_the_wrong_vm_is_refused() {
    assert_error(
        &row_error("{\"call\":\"close_vm\"}\n"),
        2,
        "`close_vm` without a `vm`",
        "write `\"vm\":` and the VM's number within its section",
    );
    assert_error(
        &row_error("{\"vm\":1,\"call\":\"end\"}\n"),
        2,
        "`end` has a `vm`",
        "it belongs to none; leave `vm` out",
    );
    assert_error(
        &row_error("{\"vm\":4294967296,\"call\":\"close_vm\"}\n"),
        2,
        "`vm` is 4294967296",
        "write a number from 0 to 4294967295",
    );
}

#[test]
fn a_result_with_wrong_fields_is_refused() {
    let error = |call: &str, result: &str| {
        row_error(&format!(
            "{{\"vm\":1,\"call\":{call},\"result\":{result}}}\n"
        ))
    };
    let reset = "\"KVM_RESET_DIRTY_RINGS\"";
    let has_ret = "the result of `KVM_RESET_DIRTY_RINGS` has `ret`";
    assert_error(&error(reset, "{}"), 2, "the result has no `ret`", has_ret);
    assert_error(
        &error(reset, r#"{"ret":0,"count":3}"#),
        2,
        "the result has a `count`",
        has_ret,
    );
    assert!(
        error(reset, r#"{"ret":0,"time":3}"#)
            .contains("unknown field `time`\nhelp: expected one of `ret`,")
    );
    assert_error(
        &error(reset, r#"{"ret":-1}"#),
        2,
        "`ret` is -1 without an `errno`",
        "a call that fails has `\"ret\":-1` and its errno's name",
    );
    assert_error(
        &error(reset, r#"{"ret":3,"errno":"EINVAL"}"#),
        2,
        "`ret` is 3, and `errno` is EINVAL",
        "a call that succeeds has no errno; one that fails has `\"ret\":-1`",
    );
    assert_error(
        &error(reset, r#"{"ret":-22,"errno":"EINVAL"}"#),
        2,
        "`ret` is -22",
        "a call that fails has `\"ret\":-1`",
    );
    assert!(
        error(reset, r#"{"ret":-1,"errno":"EWRONG"}"#)
            .contains("unknown variant `EWRONG`\nhelp: expected one of `EPERM`")
    );
    assert!(error(reset, r#"{"errno":"EINVAL"}"#).contains("an `errno` without a `ret`"));
    let peek = r#""ring_peek","vcpu":0,"fetch_index":0"#;
    assert_error(
        &error(peek, r#"{"count":2,"entries":[[1,1,0,3]],"stop_flags":0}"#),
        2,
        "`count` is 2, but `entries` has 3",
        "`count` is the sum of the runs' counts",
    );
    let read = r#""ring_read","vcpu":0,"index":0,"count":2"#;
    assert!(
        error(read, r#"{"entries":[[1,1,0,3]]}"#).contains("`count` is 2, but `entries` has 3")
    );
    let get = r#""KVM_GET_DIRTY_LOG","slot":1,"as_id":0"#;
    assert_error(
        &error(get, r#"{"ret":0,"words_written":4,"words":{"4":"0x1"}}"#),
        2,
        "`words` has word 4, but `words_written` is 4",
        "every word's index is below `words_written`",
    );
}

#[test]
fn runs_that_claim_too_much_are_refused() {
    let peek = |entries: &str| {
        row_error(&format!(
            "{{\"vm\":1,\"call\":\"ring_peek\",\"vcpu\":0,\"fetch_index\":0,\
             \"result\":{{\"count\":0,\"entries\":{entries},\"stop_flags\":0}}}}\n"
        ))
    };
    let too_many = ("too many entries", "expected at most 65536");
    assert_error(
        &peek("[[1,1,0,1152921504606846976]]"),
        2,
        too_many.0,
        too_many.1,
    );
    assert_error(
        &peek("[[1,1,0,65536],[1,1,0,1]]"),
        2,
        too_many.0,
        too_many.1,
    );
    assert_error(
        &peek("[[1,1,0,0]]"),
        2,
        "a run of count 0",
        "expected at least 1",
    );
    assert_error(
        &peek("[[1,1,18446744073709551615,2]]"),
        2,
        "offset out of range",
        "expected at most 18446744073709551615",
    );
    assert!(peek("[[1,1,0]]").contains("invalid length 3"));

    let pages = |runs: &str| {
        row_error(&format!(
            "{{\"vm\":1,\"call\":\"copy\",\"slot\":1,\"pages\":{runs}}}\n"
        ))
    };
    let past = ("page out of range", "expected at most 2147483646");
    assert_error(&pages("[[0,2147483648]]"), 2, past.0, past.1);
    assert_error(&pages("[[1152921504606846976,1]]"), 2, past.0, past.1);
    assert_error(
        &pages("[[18446744073709551615,18446744073709551615]]"),
        2,
        past.0,
        past.1,
    );
    assert_error(
        &pages("[[3,0]]"),
        2,
        "a run of count 0",
        "expected at least 1",
    );

    let run = |store: &str| {
        row_error(&format!(
            "{{\"vm\":1,\"call\":\"KVM_RUN\",\"vcpu\":0,\"program\":{{\"store\":{store},\"bytes\":8,\"value\":\"0x1\"}}}}\n"
        ))
    };
    assert_error(&run("[[1,2147483647,1]]"), 2, past.0, past.1);

    let words = |words: &str| {
        row_error(&format!(
            "{{\"vm\":1,\"call\":\"KVM_CLEAR_DIRTY_LOG\",\"slot\":1,\"as_id\":0,\"first_page\":0,\"num_pages\":64,\
             \"words_given\":1,\"words\":{words},\"result\":{{\"ret\":0}}}}\n"
        ))
    };
    assert_error(
        &words(r#"{"0-1152921504606846976":"0x1"}"#),
        2,
        "word out of range",
        "expected at most 33554431",
    );
    assert_error(
        &words(r#"{"3-1":"0x1"}"#),
        2,
        "a range that ends before it begins",
        "expected first-last",
    );
    let ascending = (
        "word indices out of order or twice",
        "expected ascending indices",
    );
    assert_error(
        &words(r#"{"1":"0x1","0":"0x1"}"#),
        2,
        ascending.0,
        ascending.1,
    );
    assert_error(
        &words(r#"{"0-2":"0x1","2":"0x1"}"#),
        2,
        ascending.0,
        ascending.1,
    );
    assert_error(
        &words(r#"{"+1":"0x1"}"#),
        2,
        "invalid value: string \"+1\"",
        "expected a word's index (\"3\") or a range (\"0-15\")",
    );
    for bad in ["1", "0x", "0x10000000000000000", "0x+1", "0xg"] {
        assert_error(
            &words(&format!("{{\"0\":\"{bad}\"}}")),
            2,
            &format!("invalid value: string \"{bad}\""),
            "expected a word \"0x…\" of at most 16 digits",
        );
    }
    assert_error(
        &words(r#"{"1":"0x1"}"#),
        2,
        "`words` reaches past `words_given`, which is 1",
        "every word's index is below `words_given`",
    );
}

#[test]
fn names_that_do_not_exist_are_refused_with_those_that_do() {
    let cap = row_error(
        "{\"call\":\"KVM_CHECK_EXTENSION\",\"cap\":\"KVM_CAP_RING\",\"result\":{\"ret\":0}}\n",
    );
    assert!(cap.contains("invalid value: string \"KVM_CAP_RING\"\nhelp: expected the number of a capability, or one of "));
    assert!(cap.contains("KVM_CAP_DIRTY_LOG_RING_ACQ_REL"));
    let program = "\"program\":{\"store\":[],\"bytes\":8,\"value\":\"0x1\"},\"resume\":false";
    let run = |program: &str, exit: &str| {
        row_error(&format!(
            "{{\"vm\":1,\"call\":\"KVM_RUN\",\"vcpu\":0,{program},\"result\":{{\"ret\":0,\"exit\":{exit},\
             \"program_done\":true,\"stores_retired\":0,\"stores_retired_total\":0}}}}\n"
        ))
    };
    assert!(
        run(program, "\"FULL\"")
            .contains("expected the number of an exit reason, or one of KVM_EXIT_UNKNOWN")
    );
    assert!(run(program, "4294967296").contains("invalid value: integer `4294967296`"));
    assert_error(
        &run(&program.replace('8', "3"), "2"),
        2,
        "stores of 3 bytes",
        "`bytes` is 1, 2, 4 or 8",
    );
    let with = |more: &str| run(&program.replace("\"0x1\"", &format!("\"0x1\",{more}")), "2");
    assert!(with("\"elements\":3").contains(
        "`elements` is 3 of an access that is no copy\nhelp: `elements` are those of a string instruction"
    ));
    for copy in ["\"elements\":0", "\"elements\":513", "\"at\":4"] {
        let refused = with(&format!("\"access\":\"copy\",{copy}"));
        assert!(
            refused.contains("a string instruction copies 1 to 512 elements of 8 bytes"),
            "{refused}"
        );
    }
    assert!(
        run(&program.replace("0x1", "1"), "2")
            .contains("expected a hexadecimal string \"0x…\" of at most 16 digits")
    );
    let section = row_error("{\"section\":\"a b\",\"title\":\"t\"}\n");
    assert_error(
        &section,
        2,
        "the section's name is empty or has blanks",
        "write a short word",
    );
}

#[test]
fn reading_ends_after_the_first_error() {
    let trace = format!("{HEADER}\n{{}}\n{{\"vm\":1,\"call\":\"close_vm\"}}\n");
    let mut rows = TraceReader::new(trace.as_bytes(), "t.jsonl")
        .unwrap()
        .rows::<CallRow>()
        .unwrap();
    assert!(rows.next().unwrap().is_err());
    assert!(rows.next().is_none());
}
