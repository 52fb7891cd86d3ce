//! Random scenarios, as text: every word of the language with every argument that its row has, in orders that are right, nearly right, or
//! neither.
//!
//! A scenario is made of a list of numbers, each of which decides one thing; 0 is the simplest decision, and what the list does not
//! have is 0. So a list is made smaller as any list of numbers is, and what is made of it gets simpler.

use dirtysim::fidelity::unknown_kernel;
use dirtysim::mutated::lacks;
use dirtysim::scenario::Scenario;
use dirtysim::scenario::vocabulary::VOCABULARY;
use dirtysim_model::machine::{Arch, Kernel};
use dirtysim_model::oracle::Invariant;
use dirtysim_model::words::mutation::Mutation;

/// Numbers that a scenario is made of, at most.
pub(crate) const NUMBERS: usize = 160;

/// The choices that the language's keys have; `keys.rs` compares them with those that the reader knows.
pub(crate) const WAYS: &[&str] = &[
    "right",
    "skip-first",
    "write-zero",
    "unread",
    "one-too-many",
];
pub(crate) const INTO: &[&str] = &["pending", "hand", "vmm-log", "nowhere"];
const SIGNALS: &[&str] = &["asked", "answered"];
pub(crate) const LOGS: &[&str] = &["right", "early", "none", "wrong-space"];

/// Words that many mutations are about.
const MUTABLE: &[&str] = &[
    "get-dirty-log",
    "clear-dirty-log",
    "its-save-tables",
    "kernel-write",
    // Twice: what mutates them needs other words besides.
    "harvest-rings",
    "harvest-rings",
    "publish",
    "publish",
    "mark-queues",
    "drop-free",
    "device-log-sync",
    "take-always-dirty",
    "add-slot",
];

/// Words that say something of another thread.
const BETWEEN_THREADS: &[&str] = &["join-thread", "signal", "wait"];

/// The scenario that is made of some numbers: the text of a file.
pub(crate) fn scenario(numbers: &[u32]) -> String {
    let mut draw = Draw(numbers.iter());
    let mutations = if draw.chance(30) {
        1 + draw.below(2)
    } else {
        0
    };
    let which: Vec<u32> = (0..mutations).map(|_| draw.number()).collect();
    let text = World::new(&mut draw, mutations > 0).text(&mut draw);
    let right = format!("name = \"drawn\"\n{text}");
    let Ok(read) = Scenario::from_toml("drawn", &right) else {
        return right;
    };
    let mut can = Mutation::ALL.to_vec();
    can.retain(|mutation| lacks(&read, *mutation).is_none());
    // Few scenarios have what this one needs: there it comes more often.
    if can.contains(&Mutation::ReapPublishBeforeReset) {
        can.extend([Mutation::ReapPublishBeforeReset; 8]);
    }
    let named = which.iter().filter(|_| !can.is_empty());
    let named = named.map(|number| quoted(can[scaled(*number, can.len() as u32) as usize].name()));
    let named: Vec<String> = named.collect();
    if named.is_empty() {
        return right;
    }
    format!("name = \"drawn\"\nmutations = {}\n{text}", list(&named))
}

/// A number below `n`, the lower the lower `number` is.
fn scaled(number: u32, n: u32) -> u32 {
    ((u64::from(number) * u64::from(n)) >> 32) as u32
}

fn quoted(word: &str) -> String {
    format!("\"{word}\"")
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

/// What a writer has: seldom any number, which has many states.
fn budget(draw: &mut Draw) -> &'static str {
    if draw.chance(3) {
        return "\"any\"";
    }
    draw.pick(&["1", "1", "1", "2"])
}

/// What decides.
struct Draw<'a>(std::slice::Iter<'a, u32>);

impl Draw<'_> {
    fn number(&mut self) -> u32 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, n: u32) -> u32 {
        scaled(self.number(), n)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) >= 100 - percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }
}

/// What the steps can name.
struct World {
    arch: Arch,
    kernel: Kernel,
    vcpus: u32,
    slots: Vec<Slot>,
    word_bits: u32,
    ring: bool,
    bitmap: bool,
    manual: bool,
    devices: u32,
    threads: u32,
    /// Steps that are strewn into an order that is right, by word.
    extras: Vec<&'static str>,
    starts_logging: bool,
    /// The first thread waits for another.
    joins: bool,
    /// What makes a scenario large can be afforded so often.
    budget: u32,
}

struct Slot {
    name: String,
    pages: u32,
}

impl World {
    fn new(draw: &mut Draw, mutated: bool) -> Self {
        let extras = draw.pick(&[0, 1, 1, 2, 2, 3, 3]);
        let mut extras: Vec<&str> = (0..extras).map(|_| draw.pick(VOCABULARY).0).collect();
        if mutated {
            extras.push(draw.pick(MUTABLE));
        }
        let arch = if extras.contains(&"pre-fault") {
            Arch::X86
        } else {
            draw.pick(&[
                Arch::Arm64,
                Arch::X86,
                Arch::X86,
                Arch::Arm64,
                Arch::Riscv,
                Arch::Loongarch,
                Arch::S390,
            ])
        };
        let mut kernels = Kernel::ALL.to_vec();
        kernels.reverse();
        kernels.retain(|kernel| unknown_kernel(arch, *kernel).is_none());
        if extras.contains(&"pre-fault") {
            kernels.retain(|kernel| kernel.has_pre_fault());
        }
        let kernel = draw.pick(&kernels);
        let ring = arch.has_ring(kernel) && draw.chance(50);
        let bitmap = !ring || (arch.has_ring_with_bitmap(kernel) && draw.chance(50));
        let device = extras.iter().any(|word| word.contains("device"));
        let mut world = Self {
            arch,
            kernel,
            vcpus: 1,
            slots: Vec::new(),
            word_bits: 0,
            ring,
            bitmap,
            manual: arch.manual_protect_mask(kernel) != 0 && draw.chance(35),
            devices: u32::from(device),
            threads: u32::from(extras.iter().any(|word| BETWEEN_THREADS.contains(word))),
            extras,
            starts_logging: draw.chance(60),
            joins: false,
            budget: draw.pick(&[1, 2, 3, 3, 4, 5]),
        };
        for (of, percent, cost) in [
            (0, 40, 3),
            (1, 30, 2),
            (2, 10, 2),
            (0, 10, 3),
            (1, 20, 1),
            (1, 20, 1),
            (2, 5, 1),
        ] {
            if world.affords(draw, percent, cost) {
                *[&mut world.vcpus, &mut world.threads, &mut world.devices][of] += 1;
            }
        }
        world
    }

    /// Whether something that makes a scenario large is to be had.
    fn affords(&mut self, draw: &mut Draw, percent: u32, cost: u32) -> bool {
        let yes = self.budget >= cost && draw.chance(percent);
        if yes {
            self.budget -= cost;
        }
        yes
    }

    fn has(&self, word: &str) -> bool {
        self.extras.contains(&word)
    }

    fn text(mut self, draw: &mut Draw) -> String {
        let (machine, slots) = self.machine(draw);
        let writers = self.writers(draw);
        let protocol = self.protocol(draw);
        let mut top = String::new();
        // What no single schedule breaks, and what is not checked, is no verdict that a file can state.
        let claims: Vec<String> = Invariant::ALL
            .iter()
            .filter(|claim| {
                !matches!(
                    claim,
                    Invariant::ProtocolEnds | Invariant::NoSpuriousDirtyPage
                )
            })
            .map(|claim| quoted(claim.name()))
            .collect();
        let claims = [(); 2].map(|()| draw.pick(&claims.iter().collect::<Vec<_>>()).clone());
        if draw.chance(12) {
            // What it is about is among the claims by which it is judged, so that it says nothing of that.
            top.push_str(&format!("claims = {}\n", list(&claims)));
        } else {
            if draw.chance(12) {
                top.push_str("check_spurious = true\n");
            }
            if draw.chance(10) {
                let violated = format!("{{ violated = {} }}", claims[0]);
                let expect = draw.pick(&[violated.as_str(), "\"holds\""]);
                top.push_str(&format!("expect = {expect}\n"));
            }
            if draw.chance(4) {
                let liveness = draw.pick(&["violated", "holds"]);
                top.push_str(&format!("liveness = \"{liveness}\"\n"));
            }
        }
        if draw.chance(2) {
            top.push_str("sentence = \"Drawn.\"\norigin = \"nowhere\"\n");
        }
        format!("{top}{machine}{slots}{writers}{protocol}")
    }

    /// `[machine]` and `[[slots]]`.
    fn machine(&mut self, draw: &mut Draw) -> (String, String) {
        let mut text = format!(
            "[machine]\narch = \"{}\"\nkernel = \"{}\"\nvcpus = {}\n",
            self.arch.name(),
            self.kernel.name(),
            self.vcpus
        );
        if self.arch == Arch::X86 {
            let mmu = if self.has("pre-fault") {
                "two-dimensional"
            } else {
                draw.pick(&["two-dimensional", "shadow"])
            };
            text.push_str(&format!("mmu = \"{mmu}\"\n"));
            let ages = self.has("host-age");
            if mmu == "two-dimensional" && draw.chance(if ages { 70 } else { 10 }) {
                text.push_str("accessed_bits = false\n");
                if !ages {
                    self.extras.push("host-age");
                }
            } else if draw.chance(25) {
                text.push_str("pml = true\n");
                if draw.chance(50) {
                    text.push_str(&format!("pml_entries = {}\n", draw.pick(&[1, 2, 3])));
                }
            }
        }
        if self.ring {
            let (entries, reserved) = draw.pick(&[(2, 1), (4, 2), (4, 3), (4, 1), (8, 4)]);
            text.push_str(&format!(
                "ring = {{ entries = {entries}, reserved = {reserved} }}\n"
            ));
            if self.bitmap {
                text.push_str("ring_with_bitmap = true\n");
            }
            if draw.chance(20) {
                text.push_str(&format!("reset_batch_pages = {}\n", draw.pick(&[1, 2, 3])));
            }
        }
        if self.manual {
            let words = [
                "manual_protect = true\n",
                "manual_protect = \"initially-set\"\n",
            ];
            let offered = self.arch.manual_protect_mask(self.kernel).count_ones();
            text.push_str(draw.pick(&words[..offered as usize]));
        }
        let several = self.starts_logging
            || draw.chance(20)
            || ["add-slot", "remove-slot", "move-slot"]
                .iter()
                .any(|word| self.has(word));
        let spaces = several && draw.chance(20);
        if spaces {
            text.push_str("address_spaces = 2\n");
        }
        let slots = if several {
            self.several_slots(draw, spaces)
        } else {
            let pages =
                1 + u32::from(self.affords(draw, 50, 1)) + u32::from(self.affords(draw, 20, 1));
            text.push_str(&format!("pages = {pages}\n"));
            self.slots.push(Slot {
                name: "ram".to_owned(),
                pages,
            });
            self.starts_logging = false;
            String::new()
        };
        let most = self.slots.iter().map(|slot| slot.pages).max().unwrap_or(1);
        self.word_bits = most.next_power_of_two();
        if draw.chance(25) {
            self.word_bits = if several { draw.pick(&[1, 2]) } else { 64 };
            text.push_str(&format!("word_bits = {}\n", self.word_bits));
        }
        if slots.contains("huge = true") && draw.chance(60) {
            text.push_str(&format!("huge_pages = {}\n", draw.pick(&[2, 2, 1, 4])));
        }
        (text, slots)
    }

    fn several_slots(&mut self, draw: &mut Draw, spaces: bool) -> String {
        let mut text = String::new();
        let comes = ["add-slot", "remove-slot", "move-slot"];
        let more = comes.iter().any(|word| self.has(word)) || self.affords(draw, 40, 1);
        for index in 0..1 + u32::from(more) + u32::from(more && self.affords(draw, 15, 1)) {
            let pages =
                1 + u32::from(self.affords(draw, 25, 1)) + u32::from(self.affords(draw, 5, 1));
            let name = format!("slot{index}");
            text.push_str(&format!("[[slots]]\npages = {pages}\n"));
            if draw.chance(60) {
                text.push_str(&format!("name = \"{name}\"\n"));
            }
            if draw.chance(20) {
                text.push_str(&format!("id = {}\n", draw.pick(&[3, 7, 14]) - index));
            }
            if spaces && draw.chance(60) {
                text.push_str(&format!("as_id = {}\n", draw.below(2)));
            }
            if draw.chance(20) || self.has("move-slot") {
                let gfn = 64 * (index + 1);
                text.push_str(&format!(
                    "gfn = {gfn}\nmoves_to = [{}]\n",
                    gfn + draw.pick(&[16, 32, 0, 1])
                ));
            }
            for (key, percent) in [("huge", 25), ("readonly", 6)] {
                if draw.chance(percent) {
                    text.push_str(&format!("{key} = {}\n", draw.pick(&[true, true, false])));
                }
            }
            let absent = index > 0 && (self.has("add-slot") || draw.chance(8));
            if absent {
                text.push_str("present = false\n");
            }
            if self.starts_logging && !absent {
                text.push_str("logging = true\n");
            }
            if index > 0 && draw.chance(12) {
                text.push_str(&format!(
                    "shares = \"slot0:{}\"\n",
                    draw.below(self.slots[0].pages)
                ));
            } else if draw.chance(12) {
                let block = draw.below(6);
                text.push_str(&format!("block = {block}\n"));
            }
            self.slots.push(Slot { name, pages });
        }
        text
    }

    fn pages(&self) -> u32 {
        self.slots.iter().map(|slot| slot.pages).sum()
    }

    /// A page: its number, or its slot and offset.
    fn page(&self, draw: &mut Draw) -> String {
        let page = draw.below(self.pages());
        if !draw.chance(30) {
            return page.to_string();
        }
        let slot = &self.slots[draw.below(self.slots.len() as u32) as usize];
        format!("\"{}:{}\"", slot.name, draw.below(slot.pages))
    }

    fn page_list(&self, draw: &mut Draw) -> String {
        let pages: Vec<String> = (0..draw.pick(&[1, 1, 2]))
            .map(|_| self.page(draw))
            .collect();
        list(&pages)
    }

    fn writers(&mut self, draw: &mut Draw) -> String {
        let mut text = "[writers]\n".to_owned();
        if !draw.chance(12) {
            let stores = if draw.chance(1) {
                draw.pick(&["\"any\"", "\"any\"", "\"unlimited\""])
            } else {
                ["1", "2"][usize::from(self.affords(draw, 25, 2))]
            };
            let mut vcpu = format!("stores = {stores}");
            if self.affords(draw, 15, 1) {
                vcpu.push_str(&format!(", loads = {}", draw.pick(&[1, 1, 2])));
            }
            if draw.chance(30) {
                vcpu.push_str(&format!(", pages = {}", self.page_list(draw)));
            }
            if draw.chance(12) {
                let mut each = format!("vcpu = {}", draw.below(self.vcpus));
                for (key, percent) in [("stores", 70), ("loads", 30)] {
                    if draw.chance(percent) {
                        each.push_str(&format!(", {key} = {}", draw.below(3)));
                    }
                }
                if draw.chance(30) {
                    each.push_str(&format!(", pages = {}", self.page_list(draw)));
                }
                vcpu.push_str(&format!(", each = [{{ {each} }}]"));
            }
            text.push_str(&format!("vcpu = {{ {vcpu} }}\n"));
        }
        let percent = if self.arch == Arch::X86 { 30 } else { 15 };
        if self.affords(draw, percent, 1) {
            let mut record = format!("updates = {}, page = {}", budget(draw), self.page(draw));
            if draw.chance(30) {
                record.push_str(&format!(", vcpu = {}", draw.below(self.vcpus)));
            }
            if draw.chance(30) {
                record.push_str(&format!(", log = \"{}\"", draw.pick(LOGS)));
            }
            if self.arch == Arch::X86 && draw.chance(75) {
                record.push_str(", preempted = true");
            }
            text.push_str(&format!("kernel_record = {{ {record} }}\n"));
        } else if self.arch == Arch::X86 && self.affords(draw, 40, 1) {
            let mut stores = format!("stores = {}, page = {}", budget(draw), self.page(draw));
            if draw.chance(50) {
                stores.push_str(&format!(", vcpu = {}", draw.below(self.vcpus)));
            }
            text.push_str(&format!("emulated_stores = {{ {stores} }}\n"));
        }
        for (key, word) in [
            ("its_save", "its-save-tables"),
            ("pending_save", "save-pending-tables"),
            ("its_restore", "its-restore-tables"),
            ("kernel_write", "kernel-write"),
        ] {
            if self.has(word) || draw.chance(2) {
                text.push_str(&format!(
                    "{key} = {{ tables = {} }}\n",
                    self.page_list(draw)
                ));
            }
        }
        if self.has("take-always-dirty") || draw.chance(2) {
            text.push_str(&format!("always_dirty = {}\n", self.page_list(draw)));
        }
        if self.has("sync-file") || draw.chance(6) {
            text.push_str(&format!("send_failures = {}\n", budget(draw)));
        }
        let devices: Vec<String> = (0..self.devices)
            .map(|index| self.device(draw, index))
            .collect();
        if !devices.is_empty() {
            text.push_str(&format!("devices = {}\n", list(&devices)));
        }
        text
    }

    fn device(&self, draw: &mut Draw, index: u32) -> String {
        let mut keys = vec![format!("transfers = {}", budget(draw))];
        if draw.chance(60) {
            keys.push(format!("name = \"device{index}\""));
        }
        if draw.chance(60) {
            keys.push(format!("pages = {}", self.page_list(draw)));
        }
        if draw.chance(40) {
            keys.push(format!("log = \"{}\"", draw.pick(LOGS)));
        }
        if draw.chance(40) {
            keys.push(format!("log_in = \"{}\"", draw.pick(&["own", "vmm"])));
        }
        for key in ["iova_shift", "queues", "granule"] {
            if draw.chance(20) {
                keys.push(format!("{key} = {}", draw.pick(&[2, 1])));
            }
        }
        if draw.chance(20) {
            keys.push(format!("used_ring = {}", self.page(draw)));
        }
        if draw.chance(30) {
            keys.push(format!("runs_at_start = {}", draw.pick(&[true, false])));
        }
        format!("{{ {} }}", keys.join(", "))
    }

    fn protocol(&mut self, draw: &mut Draw) -> String {
        let mut text = "[protocol]\n".to_owned();
        if self.ring && draw.chance(10) {
            text.push_str(&format!(
                "on_ring_full = \"{}\"\n",
                draw.pick(&["wait", "reenter"])
            ));
        }
        let mut programs = vec![self.main(draw)];
        for thread in 1..=self.threads {
            programs.push(self.other(draw, thread));
        }
        self.answer(draw, &mut programs);
        text.push_str(&format!("steps = [\n  {},\n]\n", programs[0].join(",\n  ")));
        for (thread, steps) in programs.iter().enumerate().skip(1) {
            text.push_str("[[protocol.threads]]\n");
            if draw.chance(30) {
                text.push_str(&format!("name = \"other{thread}\"\n"));
            }
            text.push_str(&format!("steps = {}\n", list(steps)));
        }
        text
    }

    /// Whoever waits is signalled, and whoever signals is waited for.
    fn answer(&self, draw: &mut Draw, programs: &mut [Vec<String>]) {
        let text = programs.concat().concat();
        for name in SIGNALS {
            let has = |word: &str| text.contains(&format!("\"{word}\", name = \"{name}\""));
            let answer = match (has("signal"), has("wait")) {
                (true, false) => "wait",
                (false, true) => "signal",
                (true, true) | (false, false) => continue,
            };
            let to = draw.below(programs.len() as u32) as usize;
            let at = draw.below(programs[to].len() as u32) as usize;
            let answer = draw
                .pick(&[
                    format!("{{ {answer} = \"{name}\" }}").as_str(),
                    format!("{{ step = \"{answer}\", name = \"{name}\" }}").as_str(),
                ])
                .to_owned();
            programs[to].insert(at, answer);
        }
    }

    /// What collects what was written; `last`: nobody writes any more.
    fn collect(&self, draw: &mut Draw, last: bool) -> Vec<String> {
        let mut steps = Vec::new();
        if self.ring {
            steps.push(self.plain(draw, "harvest-rings"));
            if !last {
                steps.push(self.plain(draw, "reset-rings"));
            }
        }
        if self.bitmap {
            steps.push(self.plain(draw, "get-dirty-log"));
            if self.manual && !last {
                steps.push(self.plain(draw, "clear-dirty-log"));
            }
        }
        if last {
            for _ in 0..self.devices.min(1) {
                steps.push(quoted("device-log-sync"));
            }
            if self.devices > 0 || self.has("vmm-write") || self.has("mark-queues") {
                steps.push(quoted("vmm-log-sync"));
            }
            if self.has("take-always-dirty") {
                steps.push(quoted("take-always-dirty"));
            }
        }
        steps.push(self.plain(draw, "copy"));
        steps
    }

    /// The first thread's steps: a right order, and then something done to it.
    fn main(&mut self, draw: &mut Draw) -> Vec<String> {
        let mut steps = Vec::new();
        if !self.starts_logging || draw.chance(30) {
            steps.push(self.plain(draw, "enable-logging"));
        }
        let full = if draw.chance(10) {
            "take-all"
        } else {
            "copy-all"
        };
        steps.push(self.plain(draw, full));
        if self.affords(draw, 30, 2) {
            steps.extend(self.collect(draw, false));
        }
        if self.threads > 0 && draw.chance(50) {
            steps.push(self.step(draw, "join-thread", 0));
        }
        steps.push(quoted("pause-vcpus"));
        if self.devices > 0 {
            steps.push(quoted("drain-devices"));
        }
        let quiet = steps.len();
        steps.extend(self.collect(draw, true));
        self.joins =
            self.has("join-thread") || steps.iter().any(|step| step.contains("join-thread"));
        let mut end = if draw.chance(12) {
            "switch-over"
        } else {
            "finish"
        };
        for &word in &self.extras {
            match word {
                "finish" | "switch-over" | "end" => end = word,
                _ => {
                    // Kernel writers and the like belong between the stop and the last collection.
                    let at = if draw.chance(40) {
                        quiet
                    } else {
                        draw.below(steps.len() as u32 + 1) as usize
                    };
                    steps.insert(at.min(steps.len()), self.step(draw, word, 0));
                }
            }
        }
        if draw.chance(20) {
            steps.remove(draw.below(steps.len() as u32) as usize);
        }
        if draw.chance(15) {
            let at = draw.below(steps.len() as u32 - 1) as usize;
            steps.swap(at, at + 1);
        }
        if draw.chance(25) {
            self.wrap(draw, &mut steps);
        }
        if end == "end" {
            // It ends what is done on an error, which is where it says something.
            let copies = list(&[quoted("copy-all"), quoted("copy")]);
            let done = list(&[
                quoted("discard"),
                quoted("copy-all"),
                quoted("checkpoint"),
                quoted("end"),
            ]);
            steps.push(format!("{{ try = {copies}, on_error = {done} }}"));
            end = "finish";
        }
        steps.push(quoted(end));
        if draw.chance(1) {
            steps = vec![format!(
                "{{ forever = {} }}",
                list(&steps[..steps.len() - 1])
            )];
        }
        steps
    }

    /// Another thread's steps.
    fn other(&self, draw: &mut Draw, thread: u32) -> Vec<String> {
        let mut words = vec!["vmm-log-sync"];
        if self.ring {
            words.extend(["harvest-rings", "reset-rings"]);
        }
        if self.bitmap {
            words.extend(["get-dirty-log", "get-dirty-log", "clear-dirty-log"]);
        }
        words.extend(["copy", "publish", "vmm-write", "kick-vcpus"]);
        if !self.joins {
            words.push("join-thread");
        }
        let count = draw.pick(&[1, 1, 1, 2, 2, 3]);
        let mut steps: Vec<String> = (0..count)
            .map(|_| {
                let word = if draw.chance(15) {
                    draw.pick(VOCABULARY).0
                } else {
                    draw.pick(&words)
                };
                self.step(draw, word, thread)
            })
            .collect();
        if draw.chance(15) {
            self.wrap(draw, &mut steps);
        }
        if !self.joins && draw.chance(10) {
            steps = vec![format!("{{ forever = {} }}", list(&steps))];
        }
        steps
    }

    /// Puts something around some steps.
    fn wrap(&self, draw: &mut Draw, steps: &mut Vec<String>) {
        let first = draw.below(steps.len() as u32) as usize;
        let last = (first + 1 + draw.below(2) as usize).min(steps.len());
        let some: Vec<String> = steps.drain(first..last).collect();
        let some = list(&some);
        let chunk = if draw.chance(10) { 1 } else { self.word_bits };
        let slot = if draw.chance(30) {
            format!(", slot = {}", self.slot(draw))
        } else {
            String::new()
        };
        let on_error = draw.pick(&[
            "copy",
            "copy-all",
            "cancel",
            "put-back",
            "discard",
            "resume-vcpus",
            "checkpoint",
            "panic",
            "panic",
            "panic",
            "leave",
            "leave",
            "leave",
            "leave",
        ]);
        let wrapped = match draw.below(6) {
            0 => format!("{{ repeat = {}, steps = {some} }}", 1 + draw.below(2)),
            1 => format!("{{ lock = \"lock{}\", steps = {some} }}", draw.below(2)),
            2 => format!("{{ until_clean = {some} }}"),
            3 => format!("{{ any_number = {some} }}"),
            4 => format!("{{ each_chunk = {some}, pages = {chunk}{slot} }}"),
            _ => format!(
                "{{ try = [{}, \"copy-all\"], on_error = [\"{on_error}\"] }}",
                some.trim_matches(['[', ']'])
            ),
        };
        steps.insert(first, wrapped);
    }

    /// A step that an order has anyway: seldom with arguments.
    fn plain(&self, draw: &mut Draw, word: &'static str) -> String {
        if draw.chance(12) {
            self.step(draw, word, 0)
        } else {
            quoted(word)
        }
    }

    /// A step of thread `own`, with those of its arguments that it must have, and others.
    fn step(&self, draw: &mut Draw, word: &'static str, own: u32) -> String {
        let row = VOCABULARY.iter().find(|(known, ..)| *known == word);
        let keys = row.unwrap_or_else(|| panic!("`{word}` is no word")).1;
        let mut arguments = Vec::new();
        for &key in keys {
            let must = matches!(
                (word, key),
                ("remove-slot" | "move-slot", "slot")
                    | ("join-thread", "thread")
                    | ("signal" | "wait", "name")
                    | ("vmm-write" | "host-age" | "host-unmap", "page")
                    | (
                        "pre-fault" | "drop-free" | "mark-queues" | "end-free" | "kernel-write",
                        "pages",
                    )
            );
            let often = word == "set-user-memory-region";
            if must || draw.chance(if often { 90 } else { 50 }) {
                arguments.push(format!("{key} = {}", self.value(draw, word, key, own)));
            }
        }
        if draw.chance(5) {
            arguments.push("at = \"vmm.rs:7\"".to_owned());
        }
        if self.ring
            && arguments.iter().any(|key| key.contains("one-too-many"))
            && !arguments.iter().any(|key| key.starts_with("max"))
        {
            arguments.push("max = 2".to_owned());
        }
        match arguments.is_empty() {
            true => quoted(word),
            false => format!("{{ step = \"{word}\", {} }}", arguments.join(", ")),
        }
    }

    fn slot(&self, draw: &mut Draw) -> String {
        quoted(&self.slots[draw.below(self.slots.len() as u32) as usize].name)
    }

    fn value(&self, draw: &mut Draw, word: &str, key: &str, own: u32) -> String {
        match (word, key) {
            (_, "slot") => self.slot(draw),
            (_, "logging" | "signal" | "efault" | "stop") => {
                draw.pick(&["true", "true", "false"]).to_owned()
            }
            ("clear-dirty-log", "pages" | "first") => draw.below(self.pages() + 1).to_string(),
            ("clear-dirty-log", "chunk") => draw.pick(&[self.word_bits, 1, 2]).to_string(),
            ("clear-dirty-log", "mask") => match draw.below(3) {
                0 => quoted("seen"),
                1 => quoted("all"),
                _ => self.page_list(draw),
            },
            (_, "pages") => self.page_list(draw),
            (_, "page") => self.page(draw),
            ("pre-fault", "vcpu") => draw.below(self.vcpus).to_string(),
            // One more than there are is a vCPU that does not exist yet.
            (_, "vcpu") => draw.below(self.vcpus + 1).to_string(),
            (_, "flags") => draw.pick(&[1, 1, 0, 2, 3, 8]).to_string(),
            (_, "guest_phys_addr") => (u64::from(draw.below(self.pages() + 1)) << 12).to_string(),
            (_, "memory_size") => (u64::from(draw.below(self.pages() + 1)) << 12).to_string(),
            (_, "userspace_addr") => {
                (u64::from(draw.below(self.pages() + 1)) << 12 | 1 << 32).to_string()
            }
            (_, "max") => draw.pick(&[1, 2, 0, 3]).to_string(),
            (_, "way") => quoted(draw.pick(WAYS)),
            ("harvest-rings", "into") if draw.chance(40) => quoted("hand"),
            (_, "into") => quoted(draw.pick(INTO)),
            (_, "log") => quoted(draw.pick(LOGS)),
            (_, "fails_after") => draw.below(3).to_string(),
            (_, "name") => quoted(draw.pick(SIGNALS)),
            (_, "device") => format!("\"device{}\"", draw.below(self.devices.max(1))),
            (_, "thread") => {
                let thread = draw.below(self.threads.max(1));
                (if thread >= own { thread + 1 } else { thread }).to_string()
            }
            _ => panic!("nobody has said what a drawn `{key}` of `{word}` is"),
        }
    }
}
