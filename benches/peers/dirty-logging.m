/*
 * dirty-logging.pml once more, in Murphi, for Rumur, which knows symmetry: pages are a scalarset where nothing orders them (x86).
 * One firing of a rule is one d_step of the Promela text and one step of the model. Without symmetry, states and firings are as many as
 * SPIN's states and transitions, which the benchmark and a test compare before anything else is said.
 *
 * Sizes and switches are those of the Promela text: PAGES, VCPUS, STORES, RING, RESERVED, ROUNDS, X86, BITMAP_FIRST. They are put in by
 * a C preprocessor, which Murphi has not.
 *
 * What is written otherwise than there:
 * - a set of pages has a truth value for each page; no page is an undefined one;
 * - dirty_index - reset_index can be -1;
 * - where the VMM is, is a label and the round; the copies are one loop, the harvests another;
 * - what an architecture has no use for is left out, or constant.
 * vCPUs are numbers: harvest and RESET go through them in order. Where an actor has at most one step, a single rule has all of them, by
 * where it stands, so that few guards are looked at.
 */

type
#ifdef X86
  Page: scalarset(PAGES);
#else
  Page: 0 .. PAGES - 1;
#endif
  Vcpu: 0 .. VCPUS - 1;
  Place: 0 .. RING - 1;
  Pages: array[Page] of boolean;
  Flags: enum { FREE, DIRTY, HARVESTED };
  Entry: record flags: Flags; page: Page; end;
  InVcpu: enum { USER, CHECK_RING, CHECK_SIGNAL, TO_USER, GUEST,
                 RESOLVE, FAST, TAKE_LOCK, MAP, DROP_LOCK,
                 PUT_SLOT, PUT_OFFSET, PUT_FLAGS, PUT_INDEX, ASK };
  InVmm: enum { START, COPY,
                HARVEST, LOOK, READ_SLOT, READ_OFFSET, TAKE, GIVE_BACK,
                RESET, FIND, READ, FREE_IT, NEXT, REARM, UNLOCK, FLUSH, LEAVE,
                SIGNAL_0, SIGNAL_1, SIGNAL_2, STOPPED,
                SAVE, SAVE_WRITE, SAVE_MARK, SAVE_END,
                GET, GET_LOCK, GET_LOOK, GET_SWAP, GET_REARM, GET_UNLOCK, GET_FLUSH, GET_OUT, GET_LEAVE,
                FINISH, OVER };
  Why: enum { NOTHING, FULL, SIGNALLED };

var
  present, writable, pending, stale: Pages;
  slots_lock, guest_runs: boolean;
  readers: 0 .. VCPUS;
#ifndef X86
  bitmap, scratch: Pages;
  mutexes, writer: boolean;
#endif
  cpu: array[Vcpu] of record
    at: InVcpu;
    used: -1 .. RING;
    fetched: 0 .. RING;
    entry: array[Place] of Entry;
    tlb: Pages;
    wants: Page;
    left: 0 .. STORES;
    asked, signalled, inside, absent, logs: boolean;
#ifdef X86
    fast: boolean;
#endif
    why: Why;
  end;
  at: InVmm;
  round: 0 .. ROUNDS + 1;
  ring: 0 .. VCPUS;
  hand: Page;
  batch: Pages;
  freed: boolean;
#ifndef X86
  any: boolean;
#endif

#define V cpu[v]
#define EMPTY(set) (forall x: Page do !set[x] end)
#define EMPTIED(set) for x: Page do set[x] := false; end
#define PLACE(index) (((index) + RING) % RING)
#define OUTSIDE (forall w: Vcpu do !cpu[w].inside end)
#define NO_TLBS for w: Vcpu do for x: Page do cpu[w].tlb[x] := false; end; end

#ifdef X86
#define MAY_LOCK true
#define NOBODY_LOCKS (readers = 0)
#define MAY_RUN (guest_runs & !V.signalled)
#define BEGIN_FAULT V.fast := present[V.wants]; V.absent := !V.fast; V.at := RESOLVE
#define END_FAULT V.logs := false; V.absent := false; V.fast := false
#define PROTECT(set) for y: Page do if set[y] then writable[y] := false; end; end
#else
#define MAY_LOCK !writer
#define NOBODY_LOCKS (readers = 0 & !writer)
#define MAY_RUN (guest_runs & !V.signalled & !mutexes)
#define BEGIN_FAULT V.absent := !present[V.wants]; V.at := RESOLVE
#define END_FAULT V.logs := false; V.absent := false
/* What lies between the lowest and the highest page of the set goes with it. */
#define PROTECT(set) \
  for y: Page do \
    if (exists low: Page do low <= y & set[low] end) & (exists high: Page do y <= high & set[high] end) then \
      writable[y] := false; \
    end; \
  end
#endif

#define ENTER V.at := (V.asked ? CHECK_RING : CHECK_SIGNAL)
#define OUT_FOR_GOOD(w) cpu[w].left := 0; cpu[w].asked := false; undefine cpu[w].wants
#define HEAD V.entry[PLACE(V.used)]
#define FETCHED cpu[ring].entry[PLACE(cpu[ring].fetched)]
#define OLDEST cpu[ring].entry[0]
#define IS_FULL_NEXT (V.used + 1 >= RING - RESERVED)
/* An entry that RESET has freed before the push was through is forgotten with it. */
#define MOVE_INDEX \
  if HEAD.flags = FREE then undefine HEAD.page; end; \
  V.used := V.used + 1

startstate begin
  for x: Page do
    present[x] := false; writable[x] := false; pending[x] := false; stale[x] := true; batch[x] := false;
#ifndef X86
    bitmap[x] := false; scratch[x] := false;
#endif
  end;
  slots_lock := false; guest_runs := true; readers := 0;
#ifndef X86
  mutexes := false; writer := false; any := false;
#endif
  for v: Vcpu do
    V.at := USER; V.used := 0; V.fetched := 0;
    for i: Place do V.entry[i].flags := FREE; undefine V.entry[i].page; end;
    EMPTIED(V.tlb);
    undefine V.wants;
    V.left := STORES; V.asked := false; V.signalled := false; V.inside := false; V.absent := false; V.logs := false;
#ifdef X86
    V.fast := false;
#endif
    V.why := NOTHING;
  end;
  at := START; round := 0; ring := 0; undefine hand; freed := false;
end;

ruleset v: Vcpu do

  rule "a step with nothing to choose"
    (V.at != GUEST | V.signalled) & (V.at != USER | MAY_RUN) & (V.at != TAKE_LOCK | MAY_LOCK)
  ==> begin
    switch V.at
    case USER: V.inside := true; ENTER;
    case CHECK_RING:
      if V.used >= RING - RESERVED then
        V.why := FULL; V.at := TO_USER;
      else
        V.asked := false; V.at := CHECK_SIGNAL;
      end;
    case CHECK_SIGNAL:
      if V.signalled then
        V.why := SIGNALLED; V.at := TO_USER;
      else
        V.at := GUEST;
      end;
    case TO_USER:
      V.inside := false; V.signalled := false; V.why := NOTHING; V.at := USER;
      if !guest_runs then OUT_FOR_GOOD(v); end;
    case GUEST: ENTER;
#ifdef X86
    case RESOLVE: V.logs := true; V.at := (V.fast ? FAST : TAKE_LOCK);
    case FAST:
      if !present[V.wants] then
        V.fast := false; V.absent := true; V.at := TAKE_LOCK;
      elsif writable[V.wants] then
        END_FAULT; ENTER;
      else
        writable[V.wants] := true; V.at := PUT_SLOT;
      end;
    case TAKE_LOCK: readers := readers + 1; V.at := PUT_SLOT;
    case MAP: present[V.wants] := true; writable[V.wants] := true; V.at := DROP_LOCK;
    case DROP_LOCK: readers := readers - 1; END_FAULT; ENTER;
#else
    case RESOLVE: V.logs := true; V.at := TAKE_LOCK;
    case TAKE_LOCK: readers := readers + 1; V.at := MAP;
    case MAP:
      if V.absent & writable[V.wants] then
        V.logs := false;
      else
        present[V.wants] := true; writable[V.wants] := true;
      end;
      V.at := DROP_LOCK;
    case DROP_LOCK:
      readers := readers - 1;
      if V.logs then
        V.at := PUT_SLOT;
      else
        END_FAULT; ENTER;
      end;
#endif
    case PUT_SLOT: V.at := PUT_OFFSET;
    case PUT_OFFSET: HEAD.page := V.wants; HEAD.flags := FREE; V.at := PUT_FLAGS;
    case PUT_FLAGS: HEAD.flags := DIRTY; V.at := PUT_INDEX;
    case PUT_INDEX:
      if IS_FULL_NEXT then
        MOVE_INDEX; V.at := ASK;
#ifdef X86
      elsif !V.fast then
        MOVE_INDEX; V.at := MAP;
#endif
      else
        MOVE_INDEX; END_FAULT; ENTER;
      end;
    case ASK:
      V.asked := true;
#ifdef X86
      if !V.fast then
        V.at := MAP;
      else
        END_FAULT; V.at := CHECK_RING;
      end;
#else
      END_FAULT; V.at := CHECK_RING;
#endif
    end;
  end;

  rule "the TLB's entry is gone"
    V.at = GUEST & !isundefined(V.wants) & V.tlb[V.wants] & !writable[V.wants]
  ==> begin
    V.tlb[V.wants] := false; BEGIN_FAULT;
  end;

  ruleset x: Page do
    rule "stores, or tries again"
      V.at = GUEST & (isundefined(V.wants) ? V.left > 0 : V.wants = x)
    ==> begin
      if isundefined(V.wants) then V.left := V.left - 1; end;
      if V.tlb[x] then
        stale[x] := true; undefine V.wants;
      else
        V.wants := x;
        if writable[x] then V.tlb[x] := true; else BEGIN_FAULT; end;
      end;
    end;
  end;

end;

ruleset x: Page do
  rule "copies a page"
    at = COPY & pending[x]
  ==> begin
    pending[x] := false; stale[x] := false;
  end;
end;

/* What comes after what, once the vCPUs have stopped. */
#if defined(X86)
#define AFTER_STOP HARVEST
#define AFTER_HARVEST COPY
#define AFTER_COPY FINISH
#elif defined(BITMAP_FIRST)
#define AFTER_STOP HARVEST
#define AFTER_HARVEST GET
#define AFTER_COPY SAVE
#define AFTER_SAVE FINISH
#else
#define AFTER_STOP SAVE
#define AFTER_SAVE HARVEST
#define AFTER_HARVEST GET
#define AFTER_COPY FINISH
#endif

rule "the VMM"
  at != OVER
  & (at != COPY | EMPTY(pending))
  & (at != RESET | !slots_lock)
  & (at != REARM | NOBODY_LOCKS)
  & (at != STOPPED | OUTSIDE)
#ifndef X86
  & (at != SAVE | OUTSIDE & !mutexes)
  & (at != GET | !slots_lock)
  & (at != GET_LOCK | NOBODY_LOCKS)
#endif
==>
var oldest: Entry;
begin
  switch at
  case START: for x: Page do pending[x] := true; end; at := COPY;
  case COPY:
    if round > ROUNDS then
      at := AFTER_COPY;
    elsif round = ROUNDS then
      at := SIGNAL_0;
    else
      round := round + 1; at := HARVEST;
    end;

  case HARVEST: at := LOOK;
  case LOOK:
    if FETCHED.flags = DIRTY then
      at := READ_SLOT;
    elsif ring + 1 < VCPUS then
      ring := ring + 1;
    else
      ring := 0; at := (round > ROUNDS ? AFTER_HARVEST : RESET);
    end;
  case READ_SLOT: at := READ_OFFSET;
  case READ_OFFSET: hand := FETCHED.page; at := TAKE;
  case TAKE: pending[hand] := true; undefine hand; at := GIVE_BACK;
  case GIVE_BACK:
    FETCHED.flags := HARVESTED;
    cpu[ring].fetched := cpu[ring].fetched + 1;
    at := LOOK;

  case RESET: slots_lock := true; at := FIND;
  case FIND:
    if OLDEST.flags = HARVESTED then
      at := READ;
    elsif EMPTY(batch) then
      ring := ring + 1;
      if ring = VCPUS then at := UNLOCK; end;
    else
      at := REARM;
    end;
  case READ: hand := OLDEST.page; at := FREE_IT;
  case FREE_IT:
    OLDEST.flags := FREE;
    if cpu[ring].used != 0 then undefine OLDEST.page; end;
    at := NEXT;
  case NEXT:
    /* Entries are kept from the reset index on: the first becomes the last. */
    oldest := OLDEST;
    for i: 0 .. RING - 2 do cpu[ring].entry[i] := cpu[ring].entry[i + 1]; end;
    cpu[ring].entry[RING - 1] := oldest;
    cpu[ring].used := cpu[ring].used - 1;
    cpu[ring].fetched := cpu[ring].fetched - 1;
    freed := true; batch[hand] := true; undefine hand;
    at := FIND;
  case REARM:
    PROTECT(batch);
    EMPTIED(batch);
    ring := ring + 1;
    at := (ring = VCPUS ? UNLOCK : FIND);
  case UNLOCK: slots_lock := false; at := (freed ? FLUSH : LEAVE);
  case FLUSH: NO_TLBS; at := LEAVE;
  case LEAVE: ring := 0; freed := false; at := COPY;

  case SIGNAL_0:
    guest_runs := false;
    for w: Vcpu do if !cpu[w].inside then OUT_FOR_GOOD(w); end; end;
    cpu[0].signalled := cpu[0].inside;
    at := (VCPUS > 1 ? SIGNAL_1 : STOPPED);
#if VCPUS > 1
  case SIGNAL_1: cpu[1].signalled := cpu[1].inside; at := (VCPUS > 2 ? SIGNAL_2 : STOPPED);
#endif
#if VCPUS > 2
  case SIGNAL_2: cpu[2].signalled := cpu[2].inside; at := STOPPED;
#endif
  case STOPPED:
    EMPTIED(present); EMPTIED(writable); NO_TLBS;
    round := ROUNDS + 1; at := AFTER_STOP;

#ifndef X86
  case SAVE: mutexes := true; at := SAVE_WRITE;
  case SAVE_WRITE: stale[PAGES - 1] := true; at := SAVE_MARK;
  case SAVE_MARK: bitmap[PAGES - 1] := true; at := SAVE_END;
  case SAVE_END: mutexes := false; at := AFTER_SAVE;

  case GET: slots_lock := true; at := GET_LOCK;
  case GET_LOCK: writer := true; EMPTIED(scratch); at := GET_LOOK;
  case GET_LOOK: at := (EMPTY(bitmap) ? GET_UNLOCK : GET_SWAP);
  case GET_SWAP: scratch := bitmap; EMPTIED(bitmap); any := true; at := GET_REARM;
  case GET_REARM: PROTECT(scratch); at := GET_UNLOCK;
  case GET_UNLOCK: writer := false; at := (any ? GET_FLUSH : GET_OUT);
  case GET_FLUSH: NO_TLBS; at := GET_OUT;
  case GET_OUT:
    for x: Page do if scratch[x] then pending[x] := true; end; end;
    EMPTIED(scratch);
    at := GET_LEAVE;
  case GET_LEAVE: slots_lock := false; any := false; at := COPY;
#endif

  case FINISH:
    assert EMPTY(stale) "no dirty page is lost";
    at := OVER;
  end;
end;
