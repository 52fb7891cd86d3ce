//! Each thing that can be wrong with a raw recording.

use dirtysim::import::{ImportError, import_kvm_jsonl};

const TITLE: &str = r#"{"scenario":"s","n":0,"vm":null,"op":"SCENARIO","title":"t"}"#;
const HOST: &str = r#"{"scenario":"s","n":1,"vm":null,"op":"HOST","arch":"arm64","kernel":"6.12","page_size":4096,"ring_page_offset":64}"#;

fn import(input: &str) -> Result<String, ImportError> {
    let mut out = Vec::new();
    import_kvm_jsonl(input.as_bytes(), "raw.jsonl", None, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn error_of(input: &str) -> String {
    match import(input) {
        Err(ImportError::Log(error)) => error.to_string(),
        other => panic!("{input} gives {other:?}"),
    }
}

/// The error of one more row after the first two; `rest` is what follows `n`.
fn row_error(rest: &str) -> String {
    error_of(&format!(
        "{TITLE}\n{HOST}\n{{\"scenario\":\"s\",\"n\":2,{rest}}}\n"
    ))
}

fn assert_error(found: &str, line: u64, problem: &str, help: &str) {
    assert_eq!(found, format!("raw.jsonl:{line}: {problem}\nhelp: {help}"));
}

#[test]
fn a_recording_begins_with_a_title_and_a_host() {
    let begins = "a recording begins with a SCENARIO row and a HOST row";
    assert_eq!(
        error_of(""),
        format!("raw.jsonl: the file is empty\nhelp: {begins}")
    );
    let host_first = HOST.replace("\"n\":1", "\"n\":0").replace("\"s\"", "\"\"");
    assert_error(
        &error_of(&host_first),
        1,
        "the first row is no SCENARIO",
        begins,
    );
    let host = "the row after the first SCENARIO is HOST: it names the machine";
    assert_error(&error_of(TITLE), 1, "there is no HOST row", host);
    let vm = r#"{"scenario":"s","n":1,"vm":1,"op":"NEW_VM","ret":0,"errno":null}"#;
    assert_error(
        &error_of(&format!("{TITLE}\n{vm}\n")),
        2,
        "there is no HOST row",
        host,
    );
    let twice = HOST.replace("\"n\":1", "\"n\":2");
    assert_error(
        &error_of(&format!("{TITLE}\n{HOST}\n{twice}\n")),
        3,
        "a second HOST row",
        "a recording is of one machine; split the file",
    );
    let small = HOST.replace("4096", "512");
    assert_error(
        &error_of(&format!("{TITLE}\n{small}\n")),
        2,
        "header: `page_size` is 512 bytes",
        "write a power of two from 4096 to 65536",
    );
}

/// The trace behind its header and first title, and what was left out, of some rows after the first two.
fn unknown(rows: &[&str]) -> (Vec<String>, Vec<(String, u64)>, u64) {
    let mut text = format!("{TITLE}\n{HOST}\n");
    for row in rows {
        text.push_str(&format!("{{\"scenario\":\"s\",{row}}}\n"));
    }
    let mut out = Vec::new();
    let summary = import_kvm_jsonl(text.as_bytes(), "raw.jsonl", None, &mut out)
        .unwrap_or_else(|error| panic!("{error}"));
    let out = String::from_utf8(out).unwrap();
    let rows = out.lines().skip(2).map(str::to_owned).collect();
    (rows, summary.unknown.into_iter().collect(), summary.missing)
}

#[test]
fn words_that_are_not_known_are_left_out_and_all_are_told() {
    let new_vm = r#""vm":1,"op":"NEW_VM","ret":0,"errno":null"#;
    let (rows, words, missing) = unknown(&[
        &format!(r#""n":2,{new_vm}"#),
        r#""n":3,"vm":1,"op":"READ_MSR","index":"0x4b564d03""#,
        r#""n":4,"vm":1,"op":"CLOSE_VM","time":5,"host":"a""#,
        r#""n":5,"vm":1,"op":"RUN","vcpu":0,"program":{"wait":3},"resume":false,"ret":0,"errno":null,"exit":"IO","exit_reason":2,"program_done":true,"stores_retired":0,"stores_retired_total":0"#,
        r#""n":6,"vm":1,"op":"READ_PAGE","slot":1,"page":2,"u16":"0x1""#,
        r#""n":7,"vm":1,"op":"ENABLE_CAP","cap":"OF_TOMORROW","cap_number":999,"flags":0,"args0":0,"ret":0,"errno":null"#,
        r#""n":8,"vm":null,"op":"CHECK_EXTENSION","cap":"OF_TOMORROW","cap_number":999,"ret":1"#,
        r#""n":9,"vm":null,"op":"READ_MSR","index":"0x4b564d03""#,
        r#""n":12,"vm":null,"op":"END""#,
    ]);
    let expected = [
        r#"{"vm":1,"call":"KVM_CREATE_VM","result":{"ret":0}}"#,
        r#"{"vm":1,"unknown":"READ_MSR"}"#,
        r#"{"vm":1,"unknown":"CLOSE_VM.host, CLOSE_VM.time"}"#,
        r#"{"vm":1,"unknown":"RUN.wait"}"#,
        r#"{"vm":1,"unknown":"capability OF_TOMORROW"}"#,
        r#"{"unknown":"READ_MSR"}"#,
        r#"{"unknown":"missing rows"}"#,
        r#"{"call":"end"}"#,
    ];
    assert_eq!(rows, expected);
    let words: Vec<(&str, u64)> = words.iter().map(|(word, n)| (word.as_str(), *n)).collect();
    assert_eq!(
        words,
        [
            ("CLOSE_VM.host", 1),
            ("CLOSE_VM.time", 1),
            ("READ_MSR", 2),
            ("READ_PAGE.u16", 1),
            ("RUN.wait", 1),
            ("capability OF_TOMORROW", 2),
        ]
    );
    assert_eq!(missing, 2);
}

#[test]
fn one_byte_and_bytes_behind_the_first_eight_are_words() {
    let (rows, words, _) = unknown(&[
        r#""n":2,"vm":1,"op":"READ_PAGE","slot":1,"page":2,"u8":"0x1""#,
        r#""n":3,"vm":1,"op":"READ_PAGE","slot":1,"page":2,"offset":1024,"u64":"0x101""#,
        r#""n":4,"vm":1,"op":"USER_WRITE","slot":1,"pages":[[2,1]],"what":"bytes","value":"0x1","bytes":1,"offset":1024"#,
        r#""n":5,"vm":1,"op":"COMPARE","slot":1,"differ":[[2,1]]"#,
    ]);
    let expected = [
        r#"{"vm":1,"call":"read_page","slot":1,"page":2,"bytes":1,"result":{"value":"0x1"}}"#,
        r#"{"vm":1,"call":"read_page","slot":1,"page":2,"at":1024,"result":{"value":"0x101"}}"#,
        r#"{"vm":1,"call":"user_write","slot":1,"pages":[[2,1]],"data":{"what":"bytes","value":"0x1","bytes":1,"at":1024}}"#,
        r#"{"vm":1,"call":"compare","slot":1,"result":{"differs":[[2,1]]}}"#,
    ];
    assert_eq!(rows, expected);
    assert!(words.is_empty(), "{words:?}");
    let neither = r#"{"scenario":"s","n":2,"vm":1,"op":"READ_PAGE","slot":1,"page":2}"#;
    assert_error(
        &error_of(&format!("{TITLE}\n{HOST}\n{neither}\n")),
        3,
        "not one value that was read",
        "a READ_PAGE row has `u64` or `u8`, what was read",
    );
}

#[test]
fn what_import_has_no_word_for_is_counted_and_what_follows_is_not_made() {
    let result = r#""resume":true,"ret":0,"errno":null,"exit":"IO","exit_reason":2,"program_done":true,"stores_retired":0,"stores_retired_total":0"#;
    let (rows, words, _) = unknown(&[
        &format!(r#""n":2,"vm":1,"op":"RUN","vcpu":0,"program":{{"its_cwriter":"0x20"}},{result}"#),
        r#""n":3,"vm":2,"op":"RUN_START","vcpu":0,"program":{"store":[[1,0,1]]}"#,
        r#""n":4,"vm":2,"op":"RUN_END","vcpu":0,"exit":"IO""#,
        r#""n":5,"vm":3,"op":"WRITE_MSR","vcpu":0,"index":"0x4b564d03","value":"0x1000001""#,
        r#""n":6,"vm":3,"op":"WRITE_MSR","vcpu":0,"index":"0x4b564d01","value":"0x2000001""#,
    ]);
    let expected = [
        r#"{"vm":1,"unknown":"RUN.its_cwriter"}"#,
        r#"{"vm":2,"unknown":"RUN_START"}"#,
        r#"{"vm":2,"unknown":"RUN_END"}"#,
        r#"{"vm":3,"unknown":"WRITE_MSR"}"#,
        r#"{"vm":3,"unknown":"WRITE_MSR"}"#,
    ];
    assert_eq!(rows, expected);
    let words: Vec<(&str, u64)> = words.iter().map(|(word, n)| (word.as_str(), *n)).collect();
    assert_eq!(
        words,
        [
            ("RUN.its_cwriter", 1),
            ("RUN_END", 1),
            ("RUN_START", 1),
            ("WRITE_MSR", 2),
        ]
    );
}

#[test]
fn programs_that_read_or_do_nothing_are_programs() {
    let run = |program: &str| {
        let row = format!(
            r#""n":2,"vm":1,"op":"RUN","vcpu":0,"program":{program},"resume":false,"ret":0,"errno":null,"exit":"IO","exit_reason":2,"program_done":true,"stores_retired":0,"stores_retired_total":0"#
        );
        unknown(&[&row]).0.concat()
    };
    let reads = run(r#"{"read":[[1,0,3]]}"#);
    assert!(
        reads.contains(r#""program":{"store":[[1,0,3]],"bytes":1,"value":"0x0","access":"load"}"#),
        "{reads}"
    );
    assert!(reads.contains(r#""stores_retired":3"#), "{reads}");
    let nothing = run(r#"{"nop":true}"#);
    assert!(
        nothing.contains(r#""program":{"store":[],"bytes":1,"value":"0x0"}"#),
        "{nothing}"
    );
    let both = run(r#"{"read":[[1,0,3]],"nop":1}"#);
    assert!(
        both.contains(r#""unknown":"program that is none of"#),
        "{both}"
    );
}

#[test]
fn what_a_host_is_besides_changes_nothing() {
    let host = HOST.replace("\"arch\"", "\"cpu\":\"neoverse-n1\",\"pml\":false,\"arch\"");
    let mut out = Vec::new();
    let text = format!("{TITLE}\n{host}\n");
    let summary = import_kvm_jsonl(text.as_bytes(), "raw.jsonl", None, &mut out).unwrap();
    assert_eq!(summary.machine.pml, Some(false));
    assert_eq!(summary.unknown.keys().collect::<Vec<_>>(), ["HOST.cpu"]);
    let error = error_of(&text.replace("arm64", "arm"));
    assert!(error.contains("unknown variant `arm`"), "{error}");
}

#[test]
fn a_field_that_is_missing_is_refused() {
    assert!(row_error(r#""vm":1,"op":"NEW_VM","ret":0"#).contains("missing field `errno`"));
    assert!(
        row_error(r#""vm":1,"op":"RING_WRITE","vcpu":0,"index":0,"flags":2,"slot":null"#)
            .contains("missing field `offset`")
    );
    let every_row = "every row has `scenario`, `n`, `vm` and `op`";
    assert_error(
        &row_error(r#""op":"CLOSE_VM""#),
        3,
        "missing field `vm`",
        every_row,
    );
    assert_error(&row_error(r#""vm":1"#), 3, "missing field `op`", every_row);
}

#[test]
fn rows_out_of_order_are_refused() {
    let rows = |row: &str| error_of(&format!("{TITLE}\n{HOST}\n{row}\n"));
    assert_error(
        &rows(r#"{"scenario":"s","n":1,"vm":1,"op":"CLOSE_VM"}"#),
        3,
        "row 1 where 2 comes next",
        "rows are numbered from 0 on; one is out of order, or there twice",
    );
    assert_error(
        &rows(r#"{"scenario":"x","n":2,"vm":1,"op":"CLOSE_VM"}"#),
        3,
        "a row of scenario \"x\" where \"s\" is under way",
        "a scenario begins with a SCENARIO row, and its rows follow each other",
    );
    assert_error(
        &rows(r#"{"scenario":"s","n":2,"vm":-1,"op":"CLOSE_VM"}"#),
        3,
        "`vm` is malformed",
        "write the number of the VM within the scenario, or null",
    );
    assert!(
        rows(r#"{"scenario":"s","n":2,"vm":null,"op":"CLOSE_VM"}"#)
            .contains("`close_vm` without a `vm`")
    );
}

#[test]
fn what_a_recording_says_twice_must_agree() {
    let cap = r#""vm":null,"op":"CHECK_EXTENSION","cap":"DIRTY_LOG_RING","cap_number":223,"ret":0"#;
    let error = row_error(cap);
    assert!(error.contains("no capability is called DIRTY_LOG_RING and has number 223"));
    assert!(error.contains("DIRTY_LOG_RING (192)"));
    let run = r#""vm":1,"op":"RUN","vcpu":0,"program":{"store":[],"bytes":1,"value":"0x1"},"resume":false,"ret":0,"errno":null,"exit":"IO","exit_reason":31,"program_done":true,"stores_retired":0,"stores_retired_total":0"#;
    assert!(row_error(run).contains("no exit is called IO and has number 31"));
    let slot = r#""vm":1,"op":"SET_USER_MEMORY_REGION","slot":1,"as_id":0,"flags":1,"gpa":"0x0","npages":2,"bytes":4096,"mem":"m","mem_offset":0,"populated":true,"huge":false,"ret":0,"errno":null"#;
    assert_error(
        &row_error(slot),
        3,
        "`npages` is 2, but `bytes` is 4096",
        "`npages` is `bytes` divided by the page size, 4096, rounded down",
    );
    let peek = r#""vm":1,"op":"RING_PEEK","vcpu":0,"fetch_index":0,"count":2,"entries":[[1,1,0,1]],"stop_flags":0"#;
    assert!(row_error(peek).contains("`count` is 2, but `entries` has 1"));
    let failed = r#""vm":1,"op":"NEW_VM","ret":-1,"errno":null"#;
    assert!(row_error(failed).contains("`ret` is -1 without an `errno`"));
    let data = r#""vm":1,"op":"USER_WRITE","slot":1,"pages":[[0,1]],"what":"bytes","value":"0x1","queue_offset":0"#;
    assert!(row_error(data).contains("the fields do not belong to this `what`"));
}

#[test]
fn a_line_that_is_no_row_is_refused_as_in_a_trace() {
    assert!(error_of("{\"scenario\":").starts_with("raw.jsonl:1: the file ends inside this line"));
    assert!(error_of(&format!("{TITLE}\n\n")).starts_with("raw.jsonl:2: the line is blank"));
    assert!(error_of("{\"n\":0,\"n\":0}\n").starts_with("raw.jsonl:1: the key `n` appears twice"));
}

#[test]
fn ops_that_the_stored_recordings_lack_are_carried_over() {
    let rows = [
        (
            r#"{"scenario":"s","n":2,"vm":1,"op":"ITS_RESTORE_TABLES","ret":-1,"errno":"EBUSY"}"#,
            r#"{"vm":1,"call":"KVM_DEV_ARM_ITS_RESTORE_TABLES","result":{"ret":-1,"errno":"EBUSY"}}"#,
        ),
        (
            r#"{"scenario":"s","n":3,"vm":1,"op":"ITS_REG_READ","reg":"GITS_CREADR","offset":"0x90","value":"0xE0","ret":0,"errno":null}"#,
            r#"{"vm":1,"call":"its_reg_read","reg":"GITS_CREADR","offset":"0x90","result":{"ret":0,"value":"0xe0"}}"#,
        ),
        (
            r#"{"scenario":"s","n":4,"vm":1,"op":"COPY","slot":1,"pages":[[3,2]]}"#,
            r#"{"vm":1,"call":"copy","slot":1,"pages":[[3,2]]}"#,
        ),
        (
            r#"{"scenario":"s","n":5,"vm":1,"op":"COMPARE","slot":1,"differs":[[7,1]]}"#,
            r#"{"vm":1,"call":"compare","slot":1,"result":{"differs":[[7,1]]}}"#,
        ),
        (
            r#"{"scenario":"s","n":6,"vm":1,"op":"GET_DIRTY_LOG","slot":1,"as_id":0,"ret":0,"errno":null,"words_written":16,"words":{"0-3":"0xffffffffffffffff","4":"0xffffffffffffffff"}}"#,
            r#"{"vm":1,"call":"KVM_GET_DIRTY_LOG","slot":1,"as_id":0,"result":{"ret":0,"words_written":16,"words":{"0-4":"0xffffffffffffffff"}}}"#,
        ),
        (
            r#"{"scenario":"s","n":7,"vm":null,"op":"END"}"#,
            r#"{"call":"end"}"#,
        ),
    ];
    let raw: Vec<&str> = [TITLE, HOST]
        .into_iter()
        .chain(rows.map(|(raw, _)| raw))
        .collect();
    let trace = import(&raw.join("\n")).unwrap();
    let calls: Vec<&str> = trace.lines().skip(2).collect();
    assert_eq!(calls, rows.map(|(_, call)| call));
}

#[test]
fn a_full_disk_is_an_error_of_the_output() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = import_kvm_jsonl(
        format!("{TITLE}\n{HOST}\n").as_bytes(),
        "raw.jsonl",
        None,
        &mut Full,
    )
    .unwrap_err();
    assert!(matches!(error, ImportError::Write(_)));
    assert!(error.to_string().starts_with("cannot write the trace: "));
}
