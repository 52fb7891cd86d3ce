#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Exit codes. The last is what kernel selftests mean by "skipped". */
#define REPRODUCED 0
#define DIFFERENT 1
#define SKIPPED 4

#define PAGE 4096ull
/* Host memory that each name stands for: address space only, until it is touched. */
#define RESERVED (16ull << 30)
#define MOST_VMS 64
#define MOST_VCPUS 8
#define MOST_SLOTS 64
#define MOST_NAMES 16
#define DIRTY 1u
/* In place of a number of bytes: the guest copies a page, by one string instruction, from where no memory is. */
#define COPY 9ull
#define HOLE 0x30000000ull
/* An address at which nothing is mapped. */
#define NOWHERE ((void *)8)
#define UNUSED __attribute__((unused))
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* A run of pages, of ring entries, of words of a bitmap, of a guest program's stores. */
struct pages { uint64_t first, count; };
struct entries { uint32_t flags, slot; uint64_t offset, count; };
struct words { uint64_t first, last, word; };
struct stores { uint32_t slot; uint64_t first, count; };

struct slot {
	int used;
	uint32_t number;
	uint64_t gpa, pages, offset;
	uint8_t *memory;
	uint8_t **copies;
};
struct vcpu {
	int fd;
	struct kvm_run *run;
	struct kvm_dirty_gfn *ring;
	uint32_t ring_entries;
	uint64_t retired;
};
struct vm {
	int fd;
	uint64_t ring_bytes, own_gpa;
	uint8_t *own;
	uint8_t *memory[MOST_NAMES];
	struct slot slots[MOST_SLOTS];
	struct vcpu vcpus[MOST_VCPUS];
};

static int kvm_fd = -1;
static struct vm vms[MOST_VMS];
static int differences;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(SKIPPED);
}

/* A result that is not the recorded one; `line` is the trace's. */
UNUSED static void differ(int line, const char *what, long long got, long long wanted)
{
	printf("line %d: %s: %lld here, %lld in the trace\n", line, what, got, wanted);
	differences++;
}

/* An ioctl's result: a value that is not negative, or an errno that is. */
UNUSED static void expect(int line, const char *what, long long got, long long wanted)
{
	if (got < 0)
		got = -errno;
	if (got != wanted)
		differ(line, what, got, wanted);
}

/* The guest: a loop over runs of pages that stores to (or loads from) each page once, and counts. */
#if defined(__x86_64__)
#define HERE "x86_64"
/* rsi: next run; rcx: runs left; rdi: address; rbx: pages left; rax: value, or where to copy from; r9: bytes, 0: load; r8: count */
__asm__(".pushsection .rodata\n"
	".globl guest_start\n.globl guest_end\n"
	"guest_start:\n"
	"1: test %rcx, %rcx\n jz 9f\n"
	"mov (%rsi), %rdi\n mov 8(%rsi), %rbx\n add $16, %rsi\n dec %rcx\n"
	"2: test %rbx, %rbx\n jz 1b\n"
	"cmp $8, %r9\n je 3f\n cmp $4, %r9\n je 4f\n"
	"cmp $2, %r9\n je 5f\n cmp $1, %r9\n je 6f\n cmp $9, %r9\n je 8f\n"
	"movb (%rdi), %r10b\n jmp 7f\n"
	"3: mov %rax, (%rdi)\n jmp 7f\n"
	"4: mov %eax, (%rdi)\n jmp 7f\n"
	"5: mov %ax, (%rdi)\n jmp 7f\n"
	"6: mov %al, (%rdi)\n"
	"7: inc %r8\n add $4096, %rdi\n dec %rbx\n jmp 2b\n"
	"8: mov %rsi, %r11\n mov %rcx, %r12\n mov %rax, %rsi\n mov $512, %ecx\n rep movsq\n"
	"mov %r11, %rsi\n mov %r12, %rcx\n inc %r8\n dec %rbx\n jmp 2b\n"
	"9: out %al, %dx\n jmp 9b\n"
	"guest_end:\n"
	".popsection\n");
#elif defined(__aarch64__)
#define HERE "arm64"
/* x0: next run; x1: runs left; x6: address; x7: pages left; x2: value; x3: bytes, 0: load; x4: count */
__asm__(".pushsection .rodata\n.balign 4\n"
	".globl guest_start\n.globl guest_end\n"
	"guest_start:\n"
	"1: cbz x1, 9f\n ldp x6, x7, [x0], #16\n sub x1, x1, #1\n"
	"2: cbz x7, 1b\n"
	"cmp x3, #8\n b.eq 3f\n cmp x3, #4\n b.eq 4f\n"
	"cmp x3, #2\n b.eq 5f\n cmp x3, #1\n b.eq 6f\n"
	"ldrb w8, [x6]\n b 7f\n"
	"3: str x2, [x6]\n b 7f\n"
	"4: str w2, [x6]\n b 7f\n"
	"5: strh w2, [x6]\n b 7f\n"
	"6: strb w2, [x6]\n"
	"7: add x4, x4, #1\n add x6, x6, #4096\n sub x7, x7, #1\n b 2b\n"
	"9: str w4, [x5]\n b 9b\n"
	"guest_end:\n"
	".popsection\n");
#else
#error "this reproducer has guests for x86-64 and arm64"
#endif
extern const uint8_t guest_start[], guest_end[];

#define LISTS (8 * PAGE)

#if defined(__x86_64__)
/* Where the guest's own pages are: code, descriptors, task state, tables of the first GiB. */
enum { CODE = 0x1000, GDT = 0x2000, TSS = 0x3000, PML4 = 0x5000, PDPT = 0x6000, PD = 0x7000 };

static void install(uint8_t *own, uint64_t gpa)
{
	uint64_t gdt[7] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff,
			    0x00cff3000000ffff, 0x00008b0000000fff | (uint64_t)TSS << 16, 0 };
	uint64_t entry;
	uint16_t bitmap = 104;

	(void)gpa;
	memcpy(own + CODE, guest_start, guest_end - guest_start);
	memcpy(own + GDT, gdt, sizeof(gdt));
	/* The permission bitmap of ports follows the task state and allows them all. */
	memcpy(own + TSS + 102, &bitmap, sizeof(bitmap));
	/* Present, writable, user; accessed and dirty, so that the guest's own tables never change. */
	entry = PDPT | 0x27;
	memcpy(own + PML4, &entry, 8);
	entry = PD | 0x27;
	memcpy(own + PDPT, &entry, 8);
	for (uint64_t n = 0; n < 512; n++) {
		entry = n << 21 | 0xe7;
		memcpy(own + PD + n * 8, &entry, 8);
	}
}

static void init(struct vm *vm, struct vcpu *vcpu)
{
	struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid;
	struct kvm_segment code = { .limit = ~0u, .selector = 0x1b, .type = 0xb, .present = 1,
				    .dpl = 3, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = code;
	struct kvm_sregs sregs;

	(void)vm;
	memset(&cpuid, 0, sizeof(cpuid));
	cpuid.head.nent = 256;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid) || ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid))
		die("CPUID");
	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
		die("KVM_GET_SREGS");
	data.selector = 0x23;
	data.type = 3;
	data.db = 1;
	data.l = 0;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = (struct kvm_segment){ .base = TSS, .limit = PAGE - 1, .selector = 0x28,
					 .type = 0xb, .present = 1 };
	sregs.ldt = (struct kvm_segment){ .type = 2, .present = 1 };
	sregs.gdt.base = GDT;
	sregs.gdt.limit = 7 * 8 - 1;
	sregs.idt.limit = 0;
	/* Long mode with paging and write protection. */
	sregs.cr0 = 0x80010033;
	sregs.cr3 = PML4;
	sregs.cr4 = 0x20;
	sregs.efer = 0x500;
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs))
		die("KVM_SET_SREGS");
}

static void begin(struct vm *vm, struct vcpu *vcpu, int id, uint64_t runs, uint64_t bytes, uint64_t value)
{
	struct kvm_regs regs = { .rip = CODE, .rflags = 0x3002, .rsi = LISTS + id * PAGE, .rcx = runs,
				 .rdx = 0x510, .rax = value, .r9 = bytes };

	(void)vm;
	if (ioctl(vcpu->fd, KVM_SET_REGS, &regs))
		die("KVM_SET_REGS");
}

static uint64_t retired(struct vcpu *vcpu)
{
	struct kvm_regs regs;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs))
		die("KVM_GET_REGS");
	return regs.r8;
}

static int is_done(struct vcpu *vcpu)
{
	return vcpu->run->exit_reason == KVM_EXIT_IO;
}
#else
#define DONE 0x09000000ull

static void install(uint8_t *own, uint64_t gpa)
{
	(void)gpa;
	memcpy(own, guest_start, guest_end - guest_start);
	__builtin___clear_cache((char *)own, (char *)own + PAGE);
}

static void init(struct vm *vm, struct vcpu *vcpu)
{
	struct kvm_vcpu_init wanted;

	memset(&wanted, 0, sizeof(wanted));
	if (ioctl(vm->fd, KVM_ARM_PREFERRED_TARGET, &wanted) || ioctl(vcpu->fd, KVM_ARM_VCPU_INIT, &wanted))
		die("KVM_ARM_VCPU_INIT");
}

static void core(struct vcpu *vcpu, unsigned long what, uint64_t n, uint64_t *value)
{
	struct kvm_one_reg reg = { .id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | n * 2,
				   .addr = (uint64_t)(uintptr_t)value };

	if (ioctl(vcpu->fd, what, &reg))
		die("a core register");
}

static void begin(struct vm *vm, struct vcpu *vcpu, int id, uint64_t runs, uint64_t bytes, uint64_t value)
{
	/* x0 to x5, then pc, then pstate: EL1h, every interrupt masked. */
	uint64_t values[8] = { vm->own_gpa + LISTS + id * PAGE, runs, value, bytes, 0, DONE, vm->own_gpa, 0x3c5 };

	for (uint64_t n = 0; n < 6; n++)
		core(vcpu, KVM_SET_ONE_REG, n, &values[n]);
	core(vcpu, KVM_SET_ONE_REG, 32, &values[6]);
	core(vcpu, KVM_SET_ONE_REG, 33, &values[7]);
}

static uint64_t retired(struct vcpu *vcpu)
{
	uint64_t value = 0;

	core(vcpu, KVM_GET_ONE_REG, 4, &value);
	return value;
}

static int is_done(struct vcpu *vcpu)
{
	return vcpu->run->exit_reason == KVM_EXIT_MMIO && vcpu->run->mmio.phys_addr == DONE;
}
#endif

static void interrupted(int number)
{
	(void)number;
}

UNUSED static void start(const char *arch)
{
	/* No SA_RESTART: a guest that does not come back is interrupted. */
	struct sigaction action = { .sa_handler = interrupted };

	if (strcmp(arch, HERE)) {
		printf("skipped: this is for %s\n", arch);
		exit(SKIPPED);
	}
	if (sysconf(_SC_PAGESIZE) != PAGE) {
		printf("skipped: this is for pages of %llu bytes\n", PAGE);
		exit(SKIPPED);
	}
	sigaction(SIGALRM, &action, NULL);
	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_fd < 0)
		die("/dev/kvm");
}

/* Every memslot's copy is forgotten, every file closed: a section begins with no VM. */
UNUSED static void close_vm(int n)
{
	struct vm *vm = &vms[n];

	for (int i = 0; i < MOST_SLOTS; i++) {
		for (uint64_t page = 0; vm->slots[i].copies && page < vm->slots[i].pages; page++)
			free(vm->slots[i].copies[page]);
		free(vm->slots[i].copies);
	}
	for (int i = 0; i < MOST_VCPUS; i++) {
		if (vm->vcpus[i].fd <= 0)
			continue;
		if (vm->vcpus[i].ring)
			munmap(vm->vcpus[i].ring, vm->ring_bytes);
		munmap(vm->vcpus[i].run, ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0));
		close(vm->vcpus[i].fd);
	}
	if (vm->fd > 0)
		close(vm->fd);
	for (int i = 0; i < MOST_NAMES; i++)
		if (vm->memory[i])
			munmap(vm->memory[i], RESERVED);
	memset(vm, 0, sizeof(*vm));
}

UNUSED static void create_vm(int n)
{
	close_vm(n);
	vms[n].fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	if (vms[n].fd < 0)
		die("KVM_CREATE_VM");
}

UNUSED static void check_extension(int line, int n, unsigned int cap, long long wanted)
{
	expect(line, "KVM_CHECK_EXTENSION", ioctl(n < 0 ? kvm_fd : vms[n].fd, KVM_CHECK_EXTENSION, cap), wanted);
}

UNUSED static void enable_cap(int line, int n, unsigned int number, unsigned int flags, uint64_t args0, long long wanted)
{
	struct kvm_enable_cap cap = { .cap = number, .flags = flags, .args = { args0 } };
	int ret = ioctl(vms[n].fd, KVM_ENABLE_CAP, &cap);

	/* The two capabilities of rings. */
	if (ret >= 0 && (number == 192 || number == 223))
		vms[n].ring_bytes = (uint32_t)args0;
	expect(line, "KVM_ENABLE_CAP", ret, wanted);
}

UNUSED static void create_vcpu(int line, int n, int id, long long wanted)
{
	int fd = ioctl(vms[n].fd, KVM_CREATE_VCPU, id);

	expect(line, "KVM_CREATE_VCPU", fd < 0 ? fd : 0, wanted);
	if (fd < 0 || id >= MOST_VCPUS)
		return;
	vms[n].vcpus[id].fd = fd;
	vms[n].vcpus[id].run = mmap(NULL, ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE,
				    MAP_SHARED, fd, 0);
	if (vms[n].vcpus[id].run == MAP_FAILED)
		die("mmap of a vCPU");
}

UNUSED static void vcpu_init(int n, int id)
{
	init(&vms[n], &vms[n].vcpus[id]);
}

static struct slot *slot_of(struct vm *vm, uint32_t number)
{
	for (int i = 0; i < MOST_SLOTS; i++)
		if (vm->slots[i].used && vm->slots[i].number == number)
			return &vm->slots[i];
	return NULL;
}

/* Host memory number `name`; its pages are untouched, and huge where that was asked for. */
static uint8_t *memory_of(struct vm *vm, int name)
{
	const uint64_t huge = 2ull << 20;
	uint8_t *at;

	if (vm->memory[name])
		return vm->memory[name];
	at = mmap(NULL, RESERVED + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		die("host memory");
	uint64_t skip = (huge - ((uintptr_t)at & (huge - 1))) & (huge - 1);

	if (skip)
		munmap(at, skip);
	if (huge - skip)
		munmap(at + skip + RESERVED, huge - skip);
	madvise(at + skip, RESERVED, MADV_NOHUGEPAGE);
	vm->memory[name] = at + skip;
	return vm->memory[name];
}

struct region { uint32_t slot, flags; uint64_t gpa, bytes; int name; uint64_t offset; int populated, huge, own; };

UNUSED static void set_memory(int line, int n, struct region r, long long wanted)
{
	struct vm *vm = &vms[n];
	uint8_t *memory = memory_of(vm, r.name);
	struct kvm_userspace_memory_region region = { .slot = r.slot, .flags = r.flags, .guest_phys_addr = r.gpa,
						      .memory_size = r.bytes,
						      .userspace_addr = (uint64_t)(uintptr_t)(memory + r.offset) };
	int within = r.offset < RESERVED && r.bytes <= RESERVED - r.offset;
	struct slot *slot;
	int ret;

	if (r.huge && within)
		madvise(memory + r.offset, r.bytes, MADV_HUGEPAGE);
	/* By a write: memory that is read first is the kernel's zeros, and huge zeros become small pages when they are written to. */
	if (r.populated && within && r.bytes <= 1ull << 30 && madvise(memory + r.offset, r.bytes, MADV_POPULATE_WRITE))
		for (uint64_t at = 0; at < r.bytes; at += PAGE) {
			volatile uint8_t *byte = memory + r.offset + at;
			*byte = *byte;
		}
	if (r.own && !vm->own && r.bytes) {
		vm->own = memory;
		vm->own_gpa = r.gpa;
		install(memory, r.gpa);
	}
	ret = ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
	expect(line, "KVM_SET_USER_MEMORY_REGION", ret, wanted);
	if (ret < 0)
		return;
	slot = slot_of(vm, r.slot);
	for (int i = 0; !slot && i < MOST_SLOTS; i++)
		if (!vm->slots[i].used)
			slot = &vm->slots[i];
	if (!slot)
		die("too many memslots");
	if (slot->copies && slot->pages < r.bytes / PAGE) {
		uint8_t **more = calloc(r.bytes / PAGE, sizeof(*more));

		memcpy(more, slot->copies, slot->pages * sizeof(*more));
		free(slot->copies);
		slot->copies = more;
	}
	if (!slot->copies)
		slot->copies = calloc(r.bytes / PAGE + 1, sizeof(*slot->copies));
	slot->used = r.bytes > 0;
	slot->number = r.slot;
	slot->gpa = r.gpa;
	slot->pages = r.bytes / PAGE;
	slot->offset = r.offset;
	slot->memory = memory;
}

UNUSED static void map_ring(int line, int n, int id, long long wanted)
{
	struct vcpu *vcpu = &vms[n].vcpus[id];
	void *ring = mmap(NULL, vms[n].ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, RING_PAGE_OFFSET * PAGE);

	expect(line, "mmap of the ring", ring == MAP_FAILED ? -1 : 0, wanted);
	if (ring == MAP_FAILED)
		return;
	vcpu->ring = ring;
	vcpu->ring_entries = vms[n].ring_bytes / sizeof(struct kvm_dirty_gfn);
}

struct program { const struct stores *stores; uint64_t runs, bytes, value; int resume; };
struct ended { long long ret; uint32_t exit; int done; uint64_t retired; };

UNUSED static void run(int line, int n, int id, struct program p, struct ended wanted)
{
	struct vm *vm = &vms[n];
	struct vcpu *vcpu = &vm->vcpus[id];
	uint64_t before = p.resume ? vcpu->retired : 0;
	int ret, done;

	if (!p.resume) {
		for (uint64_t i = 0; i < p.runs; i++) {
			struct slot *slot = slot_of(vm, p.stores[i].slot);
			uint64_t entry[2];

			if (!slot)
				die("a store to a memslot that is not there");
			entry[0] = slot->gpa + p.stores[i].first * PAGE;
			entry[1] = p.stores[i].count;
			memcpy(vm->own + LISTS + id * PAGE + i * 16, entry, 16);
		}
		begin(vm, vcpu, id, p.runs, p.bytes, p.value);
	}
	alarm(10);
	ret = ioctl(vcpu->fd, KVM_RUN, 0);
	alarm(0);
	expect(line, "KVM_RUN", ret, wanted.ret);
	if (ret >= 0 && vcpu->run->exit_reason != wanted.exit)
		differ(line, "the exit", vcpu->run->exit_reason, wanted.exit);
	done = ret >= 0 && is_done(vcpu);
	if (done != wanted.done)
		differ(line, "the program's end", done, wanted.done);
	if (vcpu->run->exit_reason == KVM_EXIT_IO || vcpu->run->exit_reason == KVM_EXIT_MMIO) {
		/* The access that left the guest is finished now, so that the next program finds nothing of it. */
		vcpu->run->immediate_exit = 1;
		ret = ioctl(vcpu->fd, KVM_RUN, 0);
		vcpu->run->immediate_exit = 0;
	}
	vcpu->retired = retired(vcpu);
	if (vcpu->retired - before != wanted.retired)
		differ(line, "stores that retired", vcpu->retired - before, wanted.retired);
}

static struct kvm_dirty_gfn *entry_of(int n, int id, uint32_t index)
{
	if (!vms[n].vcpus[id].ring)
		die("a ring that is not mapped");
	return &vms[n].vcpus[id].ring[index % vms[n].vcpus[id].ring_entries];
}

/* Compares what stands in a ring with runs of entries; `flags` too. */
static void compare_entries(int line, int n, int id, uint32_t index, uint64_t count, const struct entries *wanted, uint64_t runs)
{
	uint64_t at = 0;

	for (uint64_t i = 0; i < runs; i++)
		for (uint64_t k = 0; k < wanted[i].count && at < count; k++, at++) {
			struct kvm_dirty_gfn *e = entry_of(n, id, index + at);

			if (e->slot != wanted[i].slot || e->offset != wanted[i].offset + k || e->flags != wanted[i].flags) {
				printf("line %d: entry %llu of vCPU %d: slot %u page %llu flags %u here, slot %u page %llu flags %u in the trace\n",
				       line, (unsigned long long)(index + at), id, e->slot, (unsigned long long)e->offset, e->flags,
				       wanted[i].slot, (unsigned long long)(wanted[i].offset + k), wanted[i].flags);
				differences++;
				return;
			}
		}
}

/* Entries from `fetch` on that are dirty, at most `max`. */
static uint64_t dirty_entries(int n, int id, uint32_t fetch, uint64_t max)
{
	uint64_t count = 0;

	if (max > vms[n].vcpus[id].ring_entries)
		max = vms[n].vcpus[id].ring_entries;
	while (count < max && __atomic_load_n(&entry_of(n, id, fetch + count)->flags, __ATOMIC_ACQUIRE) == DIRTY)
		count++;
	return count;
}

UNUSED static void ring_peek(int line, int n, int id, uint32_t fetch, const struct entries *wanted, uint64_t runs, uint64_t total)
{
	uint64_t count = dirty_entries(n, id, fetch, ~0ull);

	if (count != total)
		differ(line, "entries in the ring", count, total);
	compare_entries(line, n, id, fetch, count, wanted, runs);
}

UNUSED static void harvest(int line, int n, int id, uint32_t fetch, uint64_t max, uint32_t flags,
			   const struct entries *wanted, uint64_t runs, uint64_t total)
{
	uint64_t count = dirty_entries(n, id, fetch, max);

	if (count != total)
		differ(line, "entries that were harvested", count, total);
	compare_entries(line, n, id, fetch, count, wanted, runs);
	for (uint64_t i = 0; i < count; i++)
		__atomic_store_n(&entry_of(n, id, fetch + i)->flags, flags, __ATOMIC_RELEASE);
}

UNUSED static void ring_read(int line, int n, int id, uint32_t index, uint64_t count, const struct entries *wanted, uint64_t runs)
{
	compare_entries(line, n, id, index, count, wanted, runs);
}

/* What is -1 stays as it is. */
UNUSED static void ring_write(int n, int id, uint32_t index, long long flags, long long slot, long long offset)
{
	struct kvm_dirty_gfn *e = entry_of(n, id, index);

	if (slot >= 0)
		e->slot = slot;
	if (offset >= 0)
		e->offset = offset;
	if (flags >= 0)
		__atomic_store_n(&e->flags, (uint32_t)flags, __ATOMIC_RELEASE);
}

UNUSED static void reset_rings(int line, int n, long long wanted)
{
	expect(line, "KVM_RESET_DIRTY_RINGS", ioctl(vms[n].fd, KVM_RESET_DIRTY_RINGS, 0), wanted);
}

static uint64_t word_of(const struct words *words, uint64_t runs, uint64_t index)
{
	for (uint64_t i = 0; i < runs; i++)
		if (index >= words[i].first && index <= words[i].last)
			return words[i].word;
	return 0;
}

UNUSED static void get_log(int line, int n, uint32_t number, const struct words *wanted, uint64_t runs, int bad, long long ret)
{
	struct slot *slot = slot_of(&vms[n], number);
	uint64_t length = slot ? (slot->pages + 63) / 64 : 1;
	uint64_t *bitmap = calloc(length + 1, 8);
	struct kvm_dirty_log log = { .slot = number, .dirty_bitmap = bad ? NOWHERE : bitmap };
	int got = ioctl(vms[n].fd, KVM_GET_DIRTY_LOG, &log);

	expect(line, "KVM_GET_DIRTY_LOG", got, ret);
	for (uint64_t i = 0; got >= 0 && i < length; i++)
		if (bitmap[i] != word_of(wanted, runs, i)) {
			printf("line %d: word %llu of memslot %u's bitmap: %#llx here, %#llx in the trace\n", line,
			       (unsigned long long)i, number, (unsigned long long)bitmap[i],
			       (unsigned long long)word_of(wanted, runs, i));
			differences++;
			break;
		}
	free(bitmap);
}

UNUSED static void clear_log(int line, int n, uint32_t number, uint64_t first, uint32_t count,
			     const struct words *words, uint64_t runs, int bad, long long ret)
{
	uint64_t length = ((uint64_t)count + 63) / 64;
	uint64_t *bitmap = calloc(length + 1, 8);
	struct kvm_clear_dirty_log log = { .slot = number, .num_pages = count, .first_page = first,
					   .dirty_bitmap = bad ? NOWHERE : bitmap };

	for (uint64_t i = 0; i < length; i++)
		bitmap[i] = word_of(words, runs, i);
	expect(line, "KVM_CLEAR_DIRTY_LOG", ioctl(vms[n].fd, KVM_CLEAR_DIRTY_LOG, &log), ret);
	free(bitmap);
}

static uint8_t *page_of(int n, uint32_t number, uint64_t page)
{
	struct slot *slot = slot_of(&vms[n], number);

	if (!slot || page >= slot->pages)
		die("a page that no memslot has");
	return slot->memory + slot->offset + page * PAGE;
}

UNUSED static void user_write(int n, uint32_t number, const struct pages *pages, uint64_t runs, uint64_t value, uint64_t bytes)
{
	for (uint64_t i = 0; i < runs; i++)
		for (uint64_t k = 0; k < pages[i].count; k++)
			memcpy(page_of(n, number, pages[i].first + k), &value, bytes);
}

UNUSED static void read_page(int line, int n, uint32_t number, uint64_t page, uint64_t wanted)
{
	uint64_t value;

	memcpy(&value, page_of(n, number, page), 8);
	if (value != wanted)
		differ(line, "the page's first word", value, wanted);
}

/* Copies pages, as a migration would. */
UNUSED static void copy(int n, uint32_t number, const struct pages *pages, uint64_t runs)
{
	struct slot *slot = slot_of(&vms[n], number);

	for (uint64_t i = 0; i < runs; i++)
		for (uint64_t k = 0; k < pages[i].count; k++) {
			uint64_t page = pages[i].first + k;
			uint8_t *from = page_of(n, number, page);

			if (!slot->copies[page])
				slot->copies[page] = malloc(PAGE);
			memcpy(slot->copies[page], from, PAGE);
		}
}

/* Compares memory with the copy. A page that differs and that nothing reported is lost. */
UNUSED static void compare(int line, int n, uint32_t number, const struct pages *wanted, uint64_t runs)
{
	static const uint8_t zeros[PAGE];
	struct slot *slot = slot_of(&vms[n], number);

	if (!slot)
		die("a memslot that is not there");
	for (uint64_t page = 0; page < slot->pages; page++) {
		const uint8_t *there = slot->copies[page] ? slot->copies[page] : zeros;
		int differs = memcmp(page_of(n, number, page), there, PAGE) != 0;
		int expected = 0;

		for (uint64_t i = 0; i < runs; i++)
			expected |= page >= wanted[i].first && page - wanted[i].first < wanted[i].count;
		if (differs)
			printf("line %d: page %llu of memslot %u differs from the copy%s\n", line, (unsigned long long)page, number,
			       expected ? ", as in the trace: lost" : "");
		if (differs != expected)
			differ(line, "whether the page differs", differs, expected);
	}
}

UNUSED static int verdict(void)
{
	if (differences) {
		printf("NOT reproduced: %d results differ from the trace\n", differences);
		return DIFFERENT;
	}
	printf("reproduced: every result is the trace's\n");
	return REPRODUCED;
}
