/*
 * One scenario of dirty logging in Promela, by hand: the second statement of the semantics that this project allows
 * itself. Every d_step here is one step of the model's transition function, no more and no less, so that SPIN's number
 * of stored states equals the number of distinct states that the project's own search finds without reductions.
 *
 * The scenario: logging is on; copy all memory; ROUNDS times harvest the rings, KVM_RESET_DIRTY_RINGS, copy; stop the
 * vCPUs; on arm64 save the ITS tables (one page, the last) and harvest and GET, on x86 (which has no bitmap beside the
 * ring) harvest alone; copy; finish. BITMAP_FIRST moves the ITS's save behind the GET, and the ITS's page is lost.
 *
 * Sizes: PAGES (2 to 6), VCPUS, STORES (per vCPU), RING (entries, a power of two), RESERVED, ROUNDS; X86 or else arm64.
 *
 * How this differs from the model's own representation, without a difference in what can be told apart:
 * - a page is a bit, also in a ring's entry (bits 2 and up of it; bits 0 and 1 are the entry's flags);
 * - rings are kept rotated, so that the entry at the reset index is the first: indices count from there;
 * - a freed entry is zero, except while the push that wrote it has not moved the index past it;
 * - there is one memslot with number 0, so that slot numbers say nothing and are left out;
 * - RESET's batch is the set of its pages, not an offset and a mask, and its count is whether it freed any entry;
 * - as in the model's packed states, what nobody reads any more is zero: a fault's flags outside of it, the reason of an
 *   exit once it is over, the stores of a vCPU that will never run again;
 * - where a thread or vCPU is, and the step within, is its process's location.
 * What each step does, and its source in the kernel, is said in the model (model/src) and not again here.
 *
 * To be translated without dead-variable elimination and statement merging (spin -a -o2 -o3) when states are counted.
 */

#ifndef PAGES
#define PAGES 2
#endif
#ifndef VCPUS
#define VCPUS 2
#endif
#ifndef STORES
#define STORES 1
#endif
#ifndef RING
#define RING 4
#endif
#ifndef RESERVED
#define RESERVED 2
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif

#define ALL   ((1 << PAGES) - 1)
#define LIMIT (RING - RESERVED)
#define TABLE (1 << (PAGES - 1))

#define DIRTY     1
#define HARVESTED 2

#define RING_FULL   1
#define INTERRUPTED 2

/* Which pages. */
byte present, writable, pending, stale = ALL;
#ifndef X86
byte bitmap, scratch;
bool vcpu_mutexes;
#endif

bool slots_lock, mmu_write, guest_runs = true;
byte mmu_readers;

typedef Ring {
	byte used;    /* dirty_index - reset_index; 255 is -1: RESET is past a push that has not moved its index */
	byte fetched; /* fetch_index - reset_index */
	byte entry[RING]
};
Ring ring[VCPUS];
byte tlb[VCPUS], frame[VCPUS], stores[VCPUS] = STORES;
bool request[VCPUS], kicked[VCPUS], inside[VCPUS];

#define AT(i)  ((i) & (RING - 1))
#define FLAGS(e) ((e) & 3)

/*
 * A step to which something jumps, or after which something loops: SPIN lets nothing jump to a d_step itself, and gives a
 * loop that follows one two locations.
 */
#define STEP(body) if :: d_step { body } fi

/* ---- vCPUs ---- */

#ifdef X86
#define MAY_RUN (guest_runs && !kicked[_pid])
#else
#define MAY_RUN (guest_runs && !kicked[_pid] && !vcpu_mutexes)
#endif

/* To the request checks: the soft-full check is passed over when nothing is requested. */
#define TO_ENTRY(guard, body) \
	:: d_step { (guard) && request[_pid] -> body } ; goto soft_full \
	:: d_step { (guard) && !request[_pid] -> body } ; goto enter

#ifdef X86
#define FAULT fast = (present & frame[_pid]) != 0; was_absent = !fast
#else
#define FAULT was_absent = (present & frame[_pid]) == 0
#endif

#define STORE(page) \
	:: d_step { !frame[_pid] && stores[_pid] && (tlb[_pid] & page) -> \
		stores[_pid]--; stale = stale | page } ; goto guest \
	:: d_step { !frame[_pid] && stores[_pid] && !(tlb[_pid] & page) && (writable & page) -> \
		stores[_pid]--; frame[_pid] = page; tlb[_pid] = tlb[_pid] | page } ; goto guest \
	:: d_step { !frame[_pid] && stores[_pid] && !(tlb[_pid] & page) && !(writable & page) -> \
		stores[_pid]--; frame[_pid] = page; FAULT } ; goto resolve

#define FAULT_ENDS logging = false; was_absent = false; fast = false

/* A vCPU outside KVM_RUN, once the guest is stopped for good: what only a run could read is forgotten. */
#define OUT_FOR_GOOD(v) stores[v] = 0; request[v] = false; frame[v] = 0

/* The push is over: its entry is freed for good if RESET was here before it. */
#define INDEX \
	if \
	:: FLAGS(ring[_pid].entry[AT(ring[_pid].used)]) == 0 -> ring[_pid].entry[AT(ring[_pid].used)] = 0 \
	:: else \
	fi; \
	ring[_pid].used++

#define SOFT_FULL_NEXT (((ring[_pid].used + 1) & 255) >= LIMIT)

active [VCPUS] proctype vcpu()
{
	bool fast, was_absent, logging;
	byte exit_reason;

in_user:
	if
	TO_ENTRY(MAY_RUN, inside[_pid] = true)
	fi;
soft_full:
	if
	:: d_step { ring[_pid].used >= LIMIT -> exit_reason = RING_FULL } ; goto leave
	:: d_step { ring[_pid].used < LIMIT -> request[_pid] = false } ; goto enter
	fi;
enter:
	if
	:: d_step { kicked[_pid] -> exit_reason = INTERRUPTED } ; goto leave
	:: d_step { !kicked[_pid] -> skip } ; goto guest
	fi;
leave:
	if
	:: d_step { guest_runs -> inside[_pid] = false; kicked[_pid] = false; exit_reason = 0 } ; goto in_user
	:: d_step { !guest_runs -> inside[_pid] = false; kicked[_pid] = false; exit_reason = 0;
		OUT_FOR_GOOD(_pid) } ; goto in_user
	fi;
guest:
	if
	TO_ENTRY(kicked[_pid], skip)
	/* retry of the pending store */
	:: d_step { frame[_pid] && (tlb[_pid] & frame[_pid]) ->
		stale = stale | frame[_pid]; frame[_pid] = 0 } ; goto guest
	:: d_step { frame[_pid] && !(tlb[_pid] & frame[_pid]) && (writable & frame[_pid]) ->
		tlb[_pid] = tlb[_pid] | frame[_pid] } ; goto guest
	:: d_step { frame[_pid] && !(tlb[_pid] & frame[_pid]) && !(writable & frame[_pid]) ->
		FAULT } ; goto resolve
	/* the TLB entry is evicted */
	:: d_step { frame[_pid] && (tlb[_pid] & frame[_pid]) && !(writable & frame[_pid]) ->
		tlb[_pid] = tlb[_pid] & ~frame[_pid]; FAULT } ; goto resolve
	STORE(1)
	STORE(2)
#if PAGES > 2
	STORE(4)
#endif
#if PAGES > 3
	STORE(8)
#endif
#if PAGES > 4
	STORE(16)
#endif
#if PAGES > 5
	STORE(32)
#endif
	fi;

#ifdef X86
resolve:
	if
	:: d_step { fast -> logging = true } ; goto fast_map
	:: d_step { !fast -> logging = true } ; goto lock
	fi;
fast_map:
	if
	:: d_step { !(present & frame[_pid]) -> fast = false; was_absent = true } ; goto lock
	:: d_step { (present & frame[_pid]) && !(writable & frame[_pid]) ->
		writable = writable | frame[_pid] } ; goto push_slot
	TO_ENTRY((present & frame[_pid]) && (writable & frame[_pid]), FAULT_ENDS)
	fi;
lock:
	if
	:: d_step { !mmu_write -> mmu_readers++ } ; goto push_slot
	fi;
map:
	STEP(present = present | frame[_pid]; writable = writable | frame[_pid]) ;
	if
	TO_ENTRY(true, mmu_readers--; FAULT_ENDS)
	fi;
#else
resolve:
	STEP(logging = true) ;
	d_step { !mmu_write -> mmu_readers++ } ;
	d_step {
		if
		:: was_absent && (writable & frame[_pid]) -> logging = false
		:: else -> present = present | frame[_pid]; writable = writable | frame[_pid]
		fi
	} ;
	if
	:: d_step { logging -> mmu_readers-- } ; goto push_slot
	TO_ENTRY(!logging, mmu_readers--; FAULT_ENDS)
	fi;
#endif
push_slot:
	STEP(skip) ;
	d_step { ring[_pid].entry[AT(ring[_pid].used)] = frame[_pid] << 2 } ;
	d_step { ring[_pid].entry[AT(ring[_pid].used)] = ring[_pid].entry[AT(ring[_pid].used)] | DIRTY } ;
	if
	:: d_step { SOFT_FULL_NEXT -> INDEX } ; goto raise
#ifdef X86
	:: d_step { !SOFT_FULL_NEXT && !fast -> INDEX } ; goto map
	TO_ENTRY(!SOFT_FULL_NEXT && fast, INDEX; FAULT_ENDS)
#else
	TO_ENTRY(!SOFT_FULL_NEXT, INDEX; FAULT_ENDS)
#endif
	fi;
raise:
#ifdef X86
	if
	:: d_step { !fast -> request[_pid] = true } ; goto map
	:: d_step { fast -> request[_pid] = true; FAULT_ENDS } ; goto soft_full
	fi
#else
	if
	:: d_step { request[_pid] = true; FAULT_ENDS } ; goto soft_full
	fi
#endif
}

/* ---- the VMM's thread ---- */

#define MMU_FREE (!mmu_write && mmu_readers == 0)

/* From the lowest to the highest page of a set: what arm64 write-protects. */
#define UP(m)   ((m) | (m) << 1 | (m) << 2 | (m) << 3 | (m) << 4 | (m) << 5)
#define DOWN(m) ((m) | (m) >> 1 | (m) >> 2 | (m) >> 3 | (m) >> 4 | (m) >> 5)
#ifdef X86
#define REARM(m) writable = writable & ~(m)
#else
#define REARM(m) writable = writable & ~(UP(m) & DOWN(m))
#endif

#if VCPUS == 1
#define EACH(array, value) array[0] = value
#define ALL_STOPPED (!inside[0])
#elif VCPUS == 2
#define EACH(array, value) array[0] = value; array[1] = value
#define ALL_STOPPED (!inside[0] && !inside[1])
#else
#define EACH(array, value) array[0] = value; array[1] = value; array[2] = value
#define ALL_STOPPED (!inside[0] && !inside[1] && !inside[2])
#endif

#define COPY_PAGE(page, again) \
	:: d_step { pending & page -> pending = pending & ~page; stale = stale & ~page } ; goto again
#define COPY_2(again) COPY_PAGE(1, again) COPY_PAGE(2, again)
#if PAGES > 2
#define COPY_3(again) COPY_2(again) COPY_PAGE(4, again)
#else
#define COPY_3(again) COPY_2(again)
#endif
#if PAGES > 3
#define COPY_4(again) COPY_3(again) COPY_PAGE(8, again)
#else
#define COPY_4(again) COPY_3(again)
#endif
#if PAGES > 4
#define COPY_5(again) COPY_4(again) COPY_PAGE(16, again)
#else
#define COPY_5(again) COPY_4(again)
#endif
#if PAGES > 5
#define COPY_6(again) COPY_5(again) COPY_PAGE(32, again)
#else
#define COPY_6(again) COPY_5(again)
#endif

/* A macro and not an inline, for the sake of its label. */
#define COPY(again) \
again:	if \
	COPY_6(again) \
	:: d_step { pending == 0 -> skip } \
	fi

#define FETCHED ring[at].entry[AT(ring[at].fetched)]

inline harvest()
{
	STEP(skip) ;
	do
	:: d_step { FLAGS(FETCHED) == DIRTY -> skip } ;
	   d_step { skip } ;
	   d_step { page = FETCHED >> 2 } ;
	   d_step { pending = pending | page; page = 0 } ;
	   d_step { FETCHED = (FETCHED & ~3) | HARVESTED; ring[at].fetched++ }
	:: d_step { FLAGS(FETCHED) != DIRTY && at + 1 < VCPUS -> at++ }
	:: d_step { FLAGS(FETCHED) != DIRTY && at + 1 == VCPUS -> at = 0 } ; break
	od
}

#define FIRST ring[at].entry[0]

/* The first entry becomes the last. */
#if RING == 2
#define ROTATE page2 = FIRST; FIRST = ring[at].entry[1]; ring[at].entry[1] = page2
#elif RING == 4
#define ROTATE page2 = FIRST; FIRST = ring[at].entry[1]; ring[at].entry[1] = ring[at].entry[2]; \
	ring[at].entry[2] = ring[at].entry[3]; ring[at].entry[3] = page2
#else
#error "RING is 2 or 4"
#endif

inline reset()
{
	STEP(!slots_lock -> slots_lock = true) ;
	do
	:: d_step { (FIRST & HARVESTED) -> skip } ;
	   d_step { page = FIRST >> 2 } ;
	   /* freed; the page is still there for a push that has not moved its index */
	   d_step {
		if
		:: ring[at].used == 0 -> FIRST = FIRST & ~3
		:: else -> FIRST = 0
		fi
	   } ;
	   d_step { ROTATE; page2 = 0; ring[at].used--; ring[at].fetched--; freed = true; batch = batch | page; page = 0 }
	:: d_step { !(FIRST & HARVESTED) && batch -> skip } ;
	   if
	   :: d_step { MMU_FREE && at + 1 < VCPUS -> REARM(batch); batch = 0; at++ }
	   :: d_step { MMU_FREE && at + 1 == VCPUS -> REARM(batch); batch = 0; at++ } ; break
	   fi
	:: d_step { !(FIRST & HARVESTED) && !batch && at + 1 < VCPUS -> at++ }
	:: d_step { !(FIRST & HARVESTED) && !batch && at + 1 == VCPUS -> at++ } ; break
	od;
	if
	:: d_step { freed -> slots_lock = false } ;
	   d_step { EACH(tlb, 0) }
	:: d_step { !freed -> slots_lock = false }
	fi;
	STEP(at = 0; freed = false)
}

#define STOP(v) \
	if \
	:: !inside[v] -> OUT_FOR_GOOD(v) \
	:: else \
	fi

inline pause_vcpus()
{
#if VCPUS == 1
	STEP(guest_runs = false; STOP(0); kicked[0] = inside[0]) ;
#elif VCPUS == 2
	STEP(guest_runs = false; STOP(0); STOP(1); kicked[0] = inside[0]) ;
	STEP(kicked[1] = inside[1]) ;
#else
	STEP(guest_runs = false; STOP(0); STOP(1); STOP(2); kicked[0] = inside[0]) ;
	STEP(kicked[1] = inside[1]) ;
	STEP(kicked[2] = inside[2]) ;
#endif
	/* the mappings of a guest that never runs again are forgotten */
	STEP(ALL_STOPPED -> present = 0; writable = 0; EACH(tlb, 0))
}

#ifndef X86
inline its_save()
{
	STEP(ALL_STOPPED && !vcpu_mutexes -> vcpu_mutexes = true) ;
	d_step { stale = stale | TABLE } ;
	d_step { bitmap = bitmap | TABLE } ;
	d_step { vcpu_mutexes = false }
}

inline get_dirty_log()
{
	STEP(!slots_lock -> slots_lock = true) ;
	d_step { MMU_FREE -> mmu_write = true; scratch = 0 } ;
	if
	:: d_step { bitmap -> skip } ;
	   d_step { scratch = bitmap; bitmap = 0; any = true } ;
	   d_step { REARM(scratch) }
	:: d_step { !bitmap -> skip }
	fi;
	if
	:: d_step { any -> mmu_write = false } ;
	   d_step { EACH(tlb, 0) }
	:: d_step { !any -> mmu_write = false }
	fi;
	d_step { pending = pending | scratch; scratch = 0 } ;
	STEP(slots_lock = false; any = false)
}
#endif

active proctype vmm()
{
	byte at, page, batch, page2;
	bool freed;
#ifndef X86
	bool any;
#endif

	STEP(pending = ALL) ;
	COPY(copy_all);
	harvest(); reset(); COPY(copy_1);
#if ROUNDS > 1
	harvest(); reset(); COPY(copy_2);
#endif
#if ROUNDS > 2
	harvest(); reset(); COPY(copy_3);
#endif
	pause_vcpus();
#ifdef X86
	harvest(); COPY(copy_last);
#elif defined(BITMAP_FIRST)
	harvest(); get_dirty_log(); COPY(copy_last); its_save();
#else
	its_save(); harvest(); get_dirty_log(); COPY(copy_last);
#endif
	/* finish: no dirty page is lost */
	STEP(assert(stale == 0)) ;
end:	false
}
