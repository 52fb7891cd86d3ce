//! What is written is read as the same value, and as nothing else.

use std::collections::BTreeSet;

use dirtysim::trace::call::{Call, CallRow};
use dirtysim::trace::call_result::CallResult;
use dirtysim::trace::{
    Cap, Errno, Exit, Header, RingEntries, RingEntry, TraceReader, TraceRow, TraceWriter, WordRun,
    Words,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::strategies;

fn write(header: &Header, rows: &[CallRow]) -> Vec<u8> {
    let mut writer = TraceWriter::new(Vec::new(), header).unwrap();
    for row in rows {
        writer.row(row).unwrap();
    }
    writer.into_inner()
}

fn read(bytes: &[u8]) -> (Header, Vec<CallRow>) {
    let reader = TraceReader::new(bytes, "t.jsonl").unwrap_or_else(|error| panic!("{error}"));
    let header = reader.header().clone();
    let rows = reader.rows::<CallRow>().unwrap();
    (
        header,
        rows.map(|row| row.unwrap_or_else(|error| panic!("{error}")).row)
            .collect(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn a_trace_that_is_written_is_read_as_the_same(
        header in strategies::header(),
        rows in prop::collection::vec(strategies::call_row(), 0..8),
    ) {
        let bytes = write(&header, &rows);
        prop_assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), 1 + rows.len());
        prop_assert_eq!(read(&bytes), (header, rows));
    }

    #[test]
    fn a_name_and_its_number_are_the_same_capability_exit_and_errno(number in any::<u32>()) {
        prop_assert_eq!(Cap::from_number(number).number(), number);
        prop_assert_eq!(Exit::from_number(number).number(), number);
        prop_assert!(Errno::from_number(number).is_none_or(|errno| errno.number() == number));
    }

    /// The oracle is the list of entries itself.
    #[test]
    fn runs_of_entries_stand_for_the_entries_that_were_put_in(
        flags in prop::collection::vec((0u32..2, 0u32..2, 0u64..4), 0..40),
    ) {
        let entries: Vec<RingEntry> =
            flags.into_iter().map(|(flags, slot, offset)| RingEntry { flags, slot, offset }).collect();
        let runs = RingEntries::collect(entries.iter().copied()).unwrap();
        prop_assert_eq!(runs.iter().collect::<Vec<_>>(), entries.clone());
        prop_assert_eq!(runs.count(), entries.len() as u64);
        for pair in runs.runs().windows(2) {
            let (first, count) = pair[0];
            prop_assert_ne!(RingEntry { offset: first.offset + count, ..first }, pair[1].0, "two runs that are one");
        }
    }

    /// The oracle is the bitmap itself.
    #[test]
    fn words_stand_for_the_bitmap_that_was_put_in(
        bitmap in prop::collection::vec(prop_oneof![Just(0), Just(1), any::<u64>()], 0..20),
    ) {
        let words = Words::from_bitmap(bitmap.iter().copied()).unwrap();
        for (index, word) in bitmap.iter().enumerate() {
            prop_assert_eq!(words.word(index as u64), *word);
        }
        prop_assert_eq!(words.word(bitmap.len() as u64), 0);
        let pages: Vec<u64> =
            (0..64 * bitmap.len() as u64).filter(|page| bitmap[*page as usize / 64] >> (page % 64) & 1 == 1).collect();
        prop_assert_eq!(words.iter_pages().collect::<Vec<_>>(), pages);
    }

    #[test]
    fn results_differ_in_exactly_the_fields_that_differ(
        left in strategies::recorded_call(),
        right in strategies::recorded_call(),
    ) {
        let (left, right) = (left.result, right.result);
        prop_assert_eq!(left.differences(&left), vec![]);
        let differences = left.differences(&right);
        prop_assert_eq!(differences.is_empty(), left == right);
        for difference in &differences {
            prop_assert_ne!(&difference.left, &difference.right);
        }
        let shown: BTreeSet<&str> = differences.iter().map(|difference| difference.field).collect();
        // A field that only one side has is different.
        let (left, right): (BTreeSet<_>, BTreeSet<_>) = (left.present().collect(), right.present().collect());
        prop_assert!(left.symmetric_difference(&right).all(|field| shown.contains(field)));
    }
}

#[test]
fn a_difference_shows_both_sides_as_they_stand_in_a_trace() {
    let shown = |left: CallResult, right: CallResult| {
        let differences = left.differences(&right).into_iter();
        let text = |side: Option<serde_json::Value>| {
            side.map_or("-".to_owned(), |value| value.to_string())
        };
        differences
            .map(|difference| {
                format!(
                    "{}: {} {}",
                    difference.field,
                    text(difference.left),
                    text(difference.right)
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown(CallResult::failed(Errno::ENXIO), CallResult::returned(3)),
        ["ret: \"ENXIO\" 3"]
    );
    let mut words = Words::default();
    words
        .push_run(WordRun {
            first: 4,
            last: 4,
            word: 0x10,
        })
        .unwrap();
    let got = CallResult {
        words: Some(words),
        ..CallResult::returned(0)
    };
    let wanted = CallResult {
        words: Some(Words::default()),
        ..CallResult::returned(0)
    };
    assert_eq!(shown(got, wanted), [r#"words: {"4":"0x10"} {}"#]);
}

#[test]
fn every_call_is_generated_and_has_the_name_that_is_written() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..4096 {
        let row = strategies::recorded_call()
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let line: serde_json::Value =
            serde_json::from_str(&CallRow::Call(row.clone()).to_line().unwrap()).unwrap();
        assert_eq!(line["call"], row.call.name());
        seen.insert(row.call.name());
    }
    assert_eq!(seen, Call::NAMES.iter().copied().collect());
}

#[test]
fn a_row_that_could_not_be_read_again_is_not_written() {
    let mut runner = TestRunner::deterministic();
    let mut row = loop {
        let row = strategies::recorded_call()
            .new_tree(&mut runner)
            .unwrap()
            .current();
        if matches!(row.call, Call::ResetDirtyRings {}) {
            break row;
        }
    };
    row.result = CallResult::default();
    let mut bytes = Vec::new();
    let mut writer =
        TraceWriter::new(&mut bytes, &Header::new(dirtysim::trace::Kind::Call)).unwrap();
    assert!(writer.row(&CallRow::Call(row)).is_err());
    assert_eq!(
        bytes.iter().filter(|&&byte| byte == b'\n').count(),
        1,
        "the header only"
    );
}
