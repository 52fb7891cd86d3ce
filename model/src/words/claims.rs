//! The claims, a row each: the name, the claim in a sentence, where it comes from, and what the check does not cover.

macro_rules! claims {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $sentence:literal, source $source:literal, not_covered $not_covered:literal;)+) => {
        /// A positive claim that every state, or every end, must satisfy.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        #[repr(u8)]
        pub enum Invariant {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Invariant {
            /// Every invariant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in scenarios, traces and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The claim in a sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }

            /// Where the claim comes from.
            #[must_use]
            pub const fn source(self) -> &'static str {
                match self { $(Self::$variant => $source,)+ }
            }

            /// What the check does not cover.
            #[must_use]
            pub const fn not_covered(self) -> &'static str {
                match self { $(Self::$variant => $not_covered,)+ }
            }
        }
    };
}

claims! {
    /// At the end no page is stale.
    NoDirtyPageLost = "no_dirty_page_lost",
        "When the protocol says that it is done, every page of the destination equals the guest's.",
        source "the purpose of dirty logging",
        not_covered "memory behind no memslot; bytes within a page";
    /// A stale page is recorded, held, owed, or about to be copied.
    StalePageIsAccountedFor = "stale_page_is_accounted_for",
        "A page whose bytes differ from the destination's is recorded (a bitmap bit, an unread ring entry, a PML buffer, a device's or the VMM's own log), held by an ioctl that has not returned, owed by a writer that has not marked it yet, in the VMM's hands still to be copied, or will be: by a full copy, or because the program declares it dirty.",
        source "M. S. Tsirkin, commit edde99ce0529 (2010): a page is recorded or armed",
        not_covered "whether the account is good for anything: the end tells";
    /// A page that is none of these cannot be stored to unseen.
    UnrecordedPageIsArmed = "unrecorded_page_is_armed",
        "While logging is on and no ioctl is re-arming, a page that nobody accounts for has no writable leaf (with PML: no dirty one) and no writable TLB entry.",
        source "M. S. Tsirkin, commit edde99ce0529 (2010): a page is recorded or armed",
        not_covered "states in which an ioctl is re-arming, or in which no vCPU can run";
    /// No more entries are in use than a ring has.
    RingNeverOverflows = "ring_never_overflows",
        "A ring never has more entries in use than its size.",
        source "virt/kvm/dirty_ring.c, kvm_dirty_ring_push() (WARN_ON_ONCE)",
        not_covered "the true largest number of pushes between two entries, which nobody knows";
    /// Entries go 00, 01, 1X, 00.
    DirtyGfnFollowsLifecycle = "dirty_gfn_follows_lifecycle",
        "Ring entries are free, then dirty, then harvested, then free again, in the order of the indices.",
        source "Documentation/virt/kvm/api.rst, KVM_CAP_DIRTY_LOG_RING",
        not_covered "the payload of an entry";
    /// RESET tells how many entries it freed.
    ResetCountEqualsHarvested = "reset_count_equals_harvested",
        "KVM_RESET_DIRTY_RINGS answers with the number of harvested entries that it took back.",
        source "QEMU accel/kvm/kvm-all.c, kvm_dirty_ring_reap_locked() asserts it",
        not_covered "entries harvested while it ran, which it may or may not have seen";
    /// When an ioctl that re-armed pages returns, no TLB lets a store through to them.
    TlbIsFlushedOnReturn = "tlb_is_flushed_on_return",
        "When an ioctl that re-arms pages returns, no TLB holds a writable entry for a page whose leaf is not.",
        source "virt/kvm/kvm_main.c, the flush before each return",
        not_covered "entries that another ioctl in progress has still to flush; aged pages";
    /// No bit is set beyond a slot's last page.
    BitmapEndsAtNpages = "bitmap_ends_at_npages",
        "No bitmap has a bit beyond its slot's last page.",
        source "virt/kvm/kvm_main.c, mark_page_dirty_in_slot()",
        not_covered "the padding of user space's buffer";
    /// What is reported was written.
    NoSpuriousDirtyPage = "no_spurious_dirty_page",
        "A page that is reported dirty was written since it was last reported, or is a documented over-report.",
        source "Documentation/virt/kvm/api.rst, KVM_GET_DIRTY_LOG",
        not_covered "a store that has faulted and not retired, a page read for the first time on x86, INITIALLY_SET's first report";
    /// The kernel and the VMM do not crash.
    NothingCrashes = "nothing_crashes",
        "No step makes the kernel or the VMM crash.",
        source "commits c57351a75d01, 9b3a31c745, 56adee407f",
        not_covered "anything but the crashes that mutations stand for";
    /// Somebody can always act, and what acts gets somewhere.
    MigrationMakesProgress = "migration_makes_progress",
        "Until the end somebody can act, and no fair cycle goes on in which nothing gets done.",
        source "virt/kvm/dirty_ring.c, kvm_dirty_ring_check_request()",
        not_covered "time; cycles are looked for by `check --liveness` only";
    /// Who is waited for comes to an end.
    ProtocolEnds = "protocol_ends",
        "Once the guest is quiet, no fair cycle keeps an end away that is waited for: that of the first thread, of a thread with `finish` or `switch-over`, of one that another joins.",
        source "vfio's state_pending_exact() in QEMU: a stop-only state that counts as pending keeps the migration thread synchronising for ever",
        not_covered "time; a guest that stores for ever; looked for by `check --liveness` only";
}

impl Invariant {
    /// The invariant of that name, if there is one.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|invariant| invariant.name() == name)
    }
}

/// A set of invariants: those that a step broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Invariants(u16);

impl Invariants {
    /// None.
    pub const NONE: Self = Self(0);

    /// All of them.
    pub const ALL: Self = Self((1 << Invariant::ALL.len()) - 1);

    /// Adds one.
    #[inline(always)]
    pub fn insert(&mut self, invariant: Invariant) {
        self.0 |= 1 << invariant as u8;
    }

    /// Adds all of another set.
    pub fn union(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Those that another set has not.
    #[must_use]
    #[inline(always)]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those that another set has too.
    #[must_use]
    #[inline(always)]
    pub fn among(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether it has one.
    #[must_use]
    #[inline(always)]
    pub fn has(self, invariant: Invariant) -> bool {
        self.0 >> invariant as u8 & 1 != 0
    }

    /// Whether it has none.
    #[must_use]
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those it has, in the order of [`Invariant::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Invariant> {
        Invariant::ALL
            .iter()
            .copied()
            .filter(move |invariant| self.has(*invariant))
    }

    /// The set as bits, for storing.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The set of those bits.
    #[must_use]
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}
