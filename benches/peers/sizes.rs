//! The scenario that exists in every tool, at a size: as this project's TOML and as SPIN's definitions.

use std::fmt;
use std::path::{Path, PathBuf};

use dirtysim::scenario::Scenario;

/// A size of the scenario. The Promela text, beside this file, says what the scenario is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// x86 with rings; else arm64 with rings, the bitmap and an ITS.
    pub x86: bool,
    /// Pages of the one memslot, 2 to 6.
    pub pages: u32,
    /// vCPUs, 1 to 3.
    pub vcpus: u32,
    /// Stores of each vCPU.
    pub stores: u32,
    /// Rounds of harvest, RESET and copy before the vCPUs are stopped, 1 to 3.
    pub rounds: u32,
    /// The bitmap is fetched before the ITS's save (arm64): a page is lost.
    pub bitmap_first: bool,
}

/// Entries of a ring, and how many of them are held back.
const RING: u32 = 4;
const RESERVED: u32 = 2;

impl Sizes {
    /// The scenario in this project's words.
    pub fn scenario(&self) -> Scenario {
        let end = match (self.x86, self.bitmap_first) {
            (true, _) => r#""harvest-rings", "copy""#,
            (false, false) => r#""its-save-tables", "harvest-rings", "get-dirty-log", "copy""#,
            (false, true) => r#""harvest-rings", "get-dirty-log", "copy", "its-save-tables""#,
        };
        let (arch, bitmap, its) = if self.x86 {
            ("x86", false, String::new())
        } else {
            let its = format!("its_save = {{ tables = [{}] }}", self.pages - 1);
            ("arm64", true, its)
        };
        let expect = if self.bitmap_first {
            r#"{ violated = "no_dirty_page_lost" }"#
        } else {
            r#""holds""#
        };
        let text = format!(
            r#"
name = "peers"
expect = {expect}
[machine]
arch = "{arch}"
vcpus = {vcpus}
ring = {{ entries = {RING}, reserved = {RESERVED} }}
ring_with_bitmap = {bitmap}
[[slots]]
name = "ram"
pages = {pages}
logging = true
[writers]
vcpu = {{ stores = {stores} }}
{its}
[protocol]
steps = [
  "copy-all",
  {{ repeat = {rounds}, steps = ["harvest-rings", "reset-rings", "copy"] }},
  "pause-vcpus", {end}, "finish",
]
"#,
            vcpus = self.vcpus,
            pages = self.pages,
            stores = self.stores,
            rounds = self.rounds,
        );
        Scenario::from_toml("peers", &text).expect("the text above is a scenario")
    }

    /// As words of a command line.
    pub fn words(&self) -> Vec<String> {
        [
            u32::from(self.x86),
            self.pages,
            self.vcpus,
            self.stores,
            self.rounds,
            u32::from(self.bitmap_first),
        ]
        .map(|number| number.to_string())
        .to_vec()
    }

    /// From those words.
    pub fn from_words(words: &[String]) -> Option<Self> {
        let numbers: Vec<u32> = words.iter().map_while(|word| word.parse().ok()).collect();
        let [x86, pages, vcpus, stores, rounds, bitmap_first] = numbers[..] else {
            return None;
        };
        Some(Self {
            x86: x86 != 0,
            pages,
            vcpus,
            stores,
            rounds,
            bitmap_first: bitmap_first != 0,
        })
    }

    /// The same in SPIN's preprocessor definitions.
    pub fn definitions(&self) -> Vec<String> {
        let mut definitions = vec![
            format!("-DPAGES={}", self.pages),
            format!("-DVCPUS={}", self.vcpus),
            format!("-DSTORES={}", self.stores),
            format!("-DROUNDS={}", self.rounds),
            format!("-DRING={RING}"),
            format!("-DRESERVED={RESERVED}"),
        ];
        if self.x86 {
            definitions.push("-DX86".to_owned());
        }
        if self.bitmap_first {
            definitions.push("-DBITMAP_FIRST".to_owned());
        }
        definitions
    }

    /// A folder below `below` for what a tool makes of these sizes, made where it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn folder(&self, below: &Path, tool: &str) -> Result<PathBuf, String> {
        let definitions = self.definitions();
        let name: String = definitions
            .iter()
            .map(|d| d.trim_start_matches("-D"))
            .collect();
        let folder = below.join(format!("{name}-{tool}"));
        std::fs::create_dir_all(&folder).map_err(|error| format!("{folder:?}: {error}"))?;
        Ok(folder)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arch = if self.x86 { "x86" } else { "arm64" };
        write!(
            f,
            "{arch}, {} pages, {} vCPUs, {} stores, {} rounds",
            self.pages, self.vcpus, self.stores, self.rounds
        )
    }
}
