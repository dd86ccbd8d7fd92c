/*
 * The guest: a whole user space in one static program, run by the kernel as process 1. In a guest with a system
 * of its own it is a service (`guest/debian`), and does the same but for making the kernel ready.
 *
 * It speaks as its first act on the console ("FARM-INIT"), brings up the network, and then sends a heartbeat
 * to the observer every 5 ms: one UDP datagram of text, always with the newest counters, so that a lost one
 * costs nothing but its time stamp:
 *
 *     FARM1 nonce sequence pages_ok pages_bad disk_ok disk_bad stall_us rtc_s rtc_at_us
 *
 * The last three are told while memory is exercised: the longest gap of a 1 ms ticker in the last half second or so,
 * the seconds that the machine's real-time clock has counted, and when it last counted one by the guest's own clock.
 * A hypervisor stops the guest's own clock with the guest; the real-time clock goes on.
 *
 * After the first one it tells on the console its own clock, in µs since its kernel began, when it was ready to
 * answer and when it had answered ("FARM-READY nonce ready answered").
 *
 * When the write test has ended, a second datagram follows each heartbeat: the median and the 99th percentile of
 * each pass in µs, the median of reading blocks that nobody wrote, how many blocks were written twice, and the error
 * that ended it early, or 0:
 *
 *     FARM1-WRITES nonce first_us first_p99_us second_us second_p99_us read_us blocks errno
 *
 * And one for each read and write of the disk that are timed, in µs:
 *
 *     FARM1-DISK nonce read_us write_us
 *
 * Everything it is told stands on the kernel's command line:
 *
 *     farm.nonce=WORD                   repeated in every heartbeat: this boot and no other answers
 *     farm.address=A.B.C.D/PREFIX       its own
 *     farm.observer=A.B.C.D:PORT        where heartbeats go
 *     farm.memory_mib=N farm.pages_per_s=N   rewrite N MiB of memory at this rate, and check it all the while
 *     farm.disk=1                       write blocks of /dev/vda, and check each before it is written again
 *     farm.disk_times=1                 read blocks from all over /dev/vda, write some at its end, and time each
 *     farm.write_blocks=N               the write test, once the observer has sent anything: N blocks, twice; then it reads others
 *     farm.write_offset=N               bytes by which all of its blocks lie after their places
 *
 * `workers/guest_image.py` builds it; `workers/heartbeats.py` and `workers/volumes/base.py` know the two formats.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	HEARTBEAT_MS = 5,
	PAGE_BYTES = 4096,
	PAGE_WORDS = PAGE_BYTES / 8,
	CHECKS_PER_REWRITE = 4, /* pages checked for each one rewritten: a sweep of all takes seconds, not tens of them */
	MEMORY_STEP_MS = 10,
	BLOCK_BYTES = 4096,
	WRITE_TEST_STRIDE = 64 * 1024, /* one block in each cluster of the usual size, so that each first write copies */
	DISK_STEP_MS = 10,
	DISK_BLOCKS = 32, /* at the disk's end, where the write test never comes */
	DISK_WAIT_MS = 5000,
	READ_TEST_BLOCKS = 32,
	TIMED_STEP_MS = 5,
	TIMED_PASS = 3, /* of the words that are written: the write test has two */
	TICK_MS = 1,
	STALL_TICKS = 250, /* the longest gap of this many ticks and of as many before them is told */
	RTC_INDEX = 0x70,
	RTC_DATA = 0x71,
};

static char command_line[4096];
static const char *nonce = "none";
static uint64_t nonce_word;

static _Atomic uint64_t pages_ok, pages_bad, disk_ok, disk_bad;
static _Atomic uint64_t stall_us, rtc_s, rtc_at_us;

struct pass_times {
	uint32_t median_us, p99_us;
};
static struct pass_times first_pass, second_pass, read_pass;
static int blocks_written, write_error;
static atomic_bool writes_ended; /* set last */

/* ---- small tools ------------------------------------------------------------------------------------- */

static void say(const char *format, ...)
{
	char line[256];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof line - 1)
		length = sizeof line - 1;
	if (write(STDOUT_FILENO, line, length) < 0)
		return; /* a console that is gone leaves nobody to tell */
}

/* The guest cannot do what it is for: say so and stay silent on the network, which the observer notices. */
static void give_up(const char *what)
{
	say("FARM-FAILED %s: %s\n", what, strerror(errno));
	for (;;)
		pause();
}

/* The value of a parameter on the kernel's command line, or `otherwise`. Called once per name. */
static const char *parameter(const char *name, const char *otherwise)
{
	size_t length = strlen(name);
	for (char *at = command_line; (at = strstr(at, name)); at += length) {
		if ((at != command_line && at[-1] != ' ') || at[length] != '=')
			continue;
		char *value = strndup(at + length + 1, strcspn(at + length + 1, " \n"));
		return value ? value : otherwise;
	}
	return otherwise;
}

static long number(const char *name)
{
	return atol(parameter(name, "0"));
}

static uint64_t now_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + time.tv_nsec;
}

static void sleep_ms(long ms)
{
	struct timespec time = {ms / 1000, ms % 1000 * 1000000};
	nanosleep(&time, NULL);
}

/* splitmix64's finaliser: words that differ in one bit become words that look unrelated */
static uint64_t mix(uint64_t word)
{
	word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9u;
	word = (word ^ word >> 27) * 0x94d049bb133111ebu;
	return word ^ word >> 31;
}

/* FNV-1a */
static uint64_t digest(const char *text)
{
	uint64_t word = 0xcbf29ce484222325u;
	for (; *text; text++)
		word = (word ^ (unsigned char)*text) * 0x100000001b3u;
	return word;
}

static void fill(uint64_t *words, size_t count, uint64_t word)
{
	for (size_t i = 0; i < count; i++)
		words[i] = word;
}

static int holds(const uint64_t *words, size_t count, uint64_t word)
{
	for (size_t i = 0; i < count; i++)
		if (words[i] != word)
			return 0;
	return 1;
}

static void run(void *(*work)(void *), void *argument)
{
	pthread_t thread;
	errno = pthread_create(&thread, NULL, work, argument);
	if (errno)
		give_up("thread");
}

/* ---- start ------------------------------------------------------------------------------------------- */

/* Whether this is all there is of a user space; else a service of a whole one, which has done the rest. */
static int alone(void)
{
	return getpid() == 1;
}

static void mount_kernel_file_systems(void)
{
	mount("proc", "/proc", "proc", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
}

static void read_command_line(void)
{
	int file = open("/proc/cmdline", O_RDONLY);
	if (file < 0 || read(file, command_line, sizeof command_line - 1) < 0)
		give_up("/proc/cmdline");
	close(file);
}

/* Load the modules that a list names, one path a line, in its order. */
static void load_modules(const char *list)
{
	char path[256];
	if (!alone())
		return;
	FILE *lines = fopen(list, "r");
	if (!lines)
		give_up(list);
	while (fgets(path, sizeof path, lines)) {
		path[strcspn(path, "\n")] = 0;
		int file = open(path, O_RDONLY | O_CLOEXEC);
		if (file < 0 || (syscall(SYS_finit_module, file, "", 0) && errno != EEXIST))
			give_up(path);
		close(file);
	}
	fclose(lines);
}

static struct sockaddr_in socket_address(const char *host, int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	if (!inet_aton(host, &address.sin_addr)) {
		errno = EINVAL;
		give_up(host);
	}
	return address;
}

/* Give eth0 its address and connect a UDP socket to the observer. */
static int open_network(void)
{
	char *own = strdup(parameter("farm.address", "0.0.0.0/24"));
	char *observer = strdup(parameter("farm.observer", "0.0.0.0:0"));
	char *slash = strchr(own, '/'), *colon = strchr(observer, ':');
	if (!slash || !colon) {
		errno = EINVAL;
		give_up("farm.address or farm.observer");
	}
	*slash = *colon = 0;

	int network = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = {.ifr_name = "eth0"};
	struct sockaddr_in address = socket_address(own, 0);
	memcpy(&request.ifr_addr, &address, sizeof address);
	if (ioctl(network, SIOCSIFADDR, &request))
		give_up("address of eth0");
	address.sin_addr.s_addr = htonl(~0u << (32 - atoi(slash + 1)));
	memcpy(&request.ifr_netmask, &address, sizeof address);
	if (ioctl(network, SIOCSIFNETMASK, &request))
		give_up("netmask of eth0");
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(network, SIOCSIFFLAGS, &request))
		give_up("eth0 up");
	address = socket_address(observer, atoi(colon + 1));
	if (connect(network, (struct sockaddr *)&address, sizeof address))
		give_up("observer");
	return network;
}

/* ---- memory ------------------------------------------------------------------------------------------ */

struct memory {
	size_t pages;
	long pages_per_s;
	uint64_t *words;
	uint32_t *generation; /* of each page: how often it was rewritten */
};

static uint64_t page_word(const struct memory *memory, size_t page)
{
	return mix(nonce_word ^ (uint64_t)page << 32 ^ memory->generation[page]);
}

static void rewrite_page(struct memory *memory, size_t page)
{
	memory->generation[page]++;
	fill(memory->words + page * PAGE_WORDS, PAGE_WORDS, page_word(memory, page));
}

static void check_page(const struct memory *memory, size_t page)
{
	int good = holds(memory->words + page * PAGE_WORDS, PAGE_WORDS, page_word(memory, page));
	atomic_fetch_add(good ? &pages_ok : &pages_bad, 1);
}

/* Rewrites pages in an order without pattern and checks all of them in turn. */
static void *exercise_memory(void *argument)
{
	struct memory *memory = argument;
	long rewrites = memory->pages_per_s * MEMORY_STEP_MS / 1000;
	uint64_t random = nonce_word;
	size_t next_check = 0;
	for (;;) {
		for (long i = 0; i < rewrites; i++) {
			random = mix(random + 1);
			rewrite_page(memory, random % memory->pages);
		}
		for (long i = 0; i < rewrites * CHECKS_PER_REWRITE; i++) {
			check_page(memory, next_check);
			next_check = (next_check + 1) % memory->pages;
		}
		sleep_ms(MEMORY_STEP_MS);
	}
	return NULL;
}

static void start_memory(long mib, long pages_per_s)
{
	struct memory *memory = calloc(1, sizeof *memory);
	memory->pages = (size_t)mib * 256;
	memory->pages_per_s = pages_per_s;
	memory->generation = calloc(memory->pages, sizeof *memory->generation);
	memory->words = aligned_alloc(PAGE_BYTES, memory->pages * PAGE_BYTES);
	if (!memory->generation || !memory->words)
		give_up("memory");
	for (size_t page = 0; page < memory->pages; page++)
		rewrite_page(memory, page);
	run(exercise_memory, memory);
}

/* ---- disk -------------------------------------------------------------------------------------------- */

static int disk = -1;

/* Open the disk past the guest's page cache, and read from it: from now on it is usable. */
static void open_disk(void)
{
	void *block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	for (int waited = 0; disk < 0 && waited < DISK_WAIT_MS; waited++) {
		disk = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
		if (disk < 0)
			sleep_ms(1);
	}
	if (disk < 0 || pread(disk, block, BLOCK_BYTES, 0) != BLOCK_BYTES)
		give_up("/dev/vda");
	free(block);
}

/* Writes blocks in turn; before one is written again it must still hold what was written last. */
static void *exercise_disk(void *argument)
{
	uint64_t size, written[DISK_BLOCKS] = {0}, count = 0;
	uint64_t *block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	(void)argument;
	if (ioctl(disk, BLKGETSIZE64, &size))
		give_up("size of /dev/vda");
	for (;; sleep_ms(DISK_STEP_MS)) {
		int at = count++ % DISK_BLOCKS;
		off_t offset = size - (off_t)(at + 1) * BLOCK_BYTES;
		if (written[at]) {
			int good = pread(disk, block, BLOCK_BYTES, offset) == BLOCK_BYTES &&
				   holds(block, BLOCK_BYTES / 8, written[at]);
			atomic_fetch_add(good ? &disk_ok : &disk_bad, 1);
		}
		uint64_t word = mix(nonce_word ^ count);
		fill(block, BLOCK_BYTES / 8, word);
		if (pwrite(disk, block, BLOCK_BYTES, offset) == BLOCK_BYTES)
			written[at] = word;
		else
			atomic_fetch_add(&disk_bad, 1);
	}
	return NULL;
}

/* One of the blocks at the disk's end gets its word, always the same one; how long that took. */
static uint64_t timed_write(uint64_t *block, uint64_t size, uint64_t at)
{
	fill(block, BLOCK_BYTES / 8, mix(nonce_word ^ (uint64_t)TIMED_PASS << 32 ^ at));
	uint64_t began = now_ns();
	if (pwrite(disk, block, BLOCK_BYTES, size - (at + 1) * BLOCK_BYTES) != BLOCK_BYTES)
		give_up("timed write");
	return now_ns() - began;
}

/* Reads a block from anywhere but the disk's end, then writes one there, and so on; tells how long each took. */
static void *time_disk(void *argument)
{
	char datagram[128];
	int network = (int)(intptr_t)argument;
	uint64_t size, random = nonce_word, *block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	if (ioctl(disk, BLKGETSIZE64, &size))
		give_up("size of /dev/vda");
	for (uint64_t count = 0;; count++) {
		random = mix(random + 1);
		off_t offset = random % (size / BLOCK_BYTES - DISK_BLOCKS) * BLOCK_BYTES;
		uint64_t began = now_ns();
		if (pread(disk, block, BLOCK_BYTES, offset) != BLOCK_BYTES)
			give_up("timed read");
		uint64_t read_ns = now_ns() - began, write_ns = timed_write(block, size, count % DISK_BLOCKS);
		int length = snprintf(datagram, sizeof datagram, "FARM1-DISK %s %lu %lu", nonce, read_ns / 1000,
				      write_ns / 1000);
		send(network, datagram, length, MSG_DONTWAIT);
		sleep_ms(TIMED_STEP_MS);
	}
	return NULL;
}

static int by_size(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
	return (a > b) - (a < b);
}

struct write_test {
	long blocks;
	off_t offset;
	int network;
};

static void tell_times(struct pass_times *times, uint64_t *took_ns, long count)
{
	if (!count)
		return;
	qsort(took_ns, count, sizeof *took_ns, by_size);
	times->median_us = (took_ns[count / 2] + 500) / 1000;
	times->p99_us = (took_ns[(count * 99 + 99) / 100 - 1] + 500) / 1000;
}

/* One pass over the write test's blocks, up to the first that the disk refuses; how many were written. */
static long write_pass(const struct write_test *test, uint64_t pass, struct pass_times *times)
{
	uint64_t *took_ns = calloc(test->blocks, sizeof *took_ns);
	uint64_t *block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	long done;
	for (done = 0; done < test->blocks; done++) {
		off_t at = test->offset + (off_t)done * WRITE_TEST_STRIDE;
		fill(block, BLOCK_BYTES / 8, mix(nonce_word ^ pass << 32 ^ (uint64_t)done));
		uint64_t began = now_ns();
		if (pwrite(disk, block, BLOCK_BYTES, at) != BLOCK_BYTES) {
			write_error = errno ? errno : EIO;
			break;
		}
		took_ns[done] = now_ns() - began;
	}
	tell_times(times, took_ns, done);
	free(took_ns);
	free(block);
	return done;
}

/* Read blocks behind those of the write test, which lie as it would have written them. */
static void time_reads(const struct write_test *test)
{
	uint64_t took_ns[READ_TEST_BLOCKS], *block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	for (int i = 0; i < READ_TEST_BLOCKS; i++) {
		off_t at = test->offset + (off_t)(test->blocks + i) * WRITE_TEST_STRIDE;
		uint64_t began = now_ns();
		if (pread(disk, block, BLOCK_BYTES, at) != BLOCK_BYTES)
			write_error = errno ? errno : EIO;
		took_ns[i] = now_ns() - began;
	}
	tell_times(&read_pass, took_ns, READ_TEST_BLOCKS);
	free(block);
}

/* Wait until the observer sends anything; heartbeats go on meanwhile. */
static void wait_for_word(int network)
{
	char word[16];
	while (recv(network, word, sizeof word, 0) < 0)
		sleep_ms(1); /* an observer that is away for a moment makes an error of it */
}

static void *write_test(void *argument)
{
	const struct write_test *test = argument;
	wait_for_word(test->network);
	if (write_pass(test, 1, &first_pass) == test->blocks)
		blocks_written = write_pass(test, 2, &second_pass);
	if (fdatasync(disk))
		write_error = errno;
	if (!write_error)
		time_reads(test);
	writes_ended = true;
	return NULL;
}

static void start_write_test(int network, long blocks, off_t offset)
{
	struct write_test *test = calloc(1, sizeof *test);
	*test = (struct write_test){blocks, offset, network};
	run(write_test, test);
}

/* ---- stalls ------------------------------------------------------------------------------------------ */

/* The seconds of the minute by the machine's real-time clock, which keeps them in binary-coded decimal. */
static int rtc_second(void)
{
	outb(0, RTC_INDEX);
	int bcd = inb(RTC_DATA);
	return (bcd >> 4) * 10 + (bcd & 15);
}

/* Count the real-time clock's seconds; a pause of the guest shows as one that is too short by its own clock. */
static void follow_rtc(uint64_t now_us)
{
	static int last = -1;
	int second = rtc_second();
	if (second == last)
		return;
	if (last >= 0) {
		rtc_at_us = now_us;
		rtc_s += (second - last + 60) % 60;
	}
	last = second;
}

/* Wakes every millisecond, before all other work, and notes by how much it came too late. */
static void *tick(void *argument)
{
	struct sched_param first = {.sched_priority = 1};
	uint64_t last_us = now_ns() / 1000, longest_us = 0, before_us = 0;
	(void)argument;
	errno = pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
	if (errno || ioperm(RTC_INDEX, 2, 1))
		give_up("ticker");
	for (int ticks = 1;; ticks++) {
		sleep_ms(TICK_MS);
		uint64_t now_us = now_ns() / 1000, gap_us = now_us - last_us;
		last_us = now_us;
		if (gap_us > longest_us)
			longest_us = gap_us;
		stall_us = longest_us > before_us ? longest_us : before_us;
		if (ticks % STALL_TICKS == 0) {
			before_us = longest_us;
			longest_us = 0;
		}
		follow_rtc(now_us);
	}
	return NULL;
}

/* ---- heartbeats -------------------------------------------------------------------------------------- */

static void beat(int network, uint64_t sequence)
{
	char datagram[256];
	int length = snprintf(datagram, sizeof datagram, "FARM1 %s %lu %lu %lu %lu %lu %lu %lu %lu", nonce, sequence,
			      pages_ok, pages_bad, disk_ok, disk_bad, stall_us, rtc_s, rtc_at_us);
	/* the network may be away for a while, as in a migration: the next heartbeat says the same */
	send(network, datagram, length, MSG_DONTWAIT);
}

static void report_writes(int network)
{
	char datagram[256];
	int length = snprintf(datagram, sizeof datagram, "FARM1-WRITES %s %u %u %u %u %u %d %d", nonce,
			      first_pass.median_us, first_pass.p99_us, second_pass.median_us, second_pass.p99_us,
			      read_pass.median_us, blocks_written, write_error);
	send(network, datagram, length, MSG_DONTWAIT);
}

static void beat_for_ever(int network)
{
	for (uint64_t sequence = 1;; sequence++) {
		beat(network, sequence);
		if (writes_ended)
			report_writes(network);
		sleep_ms(HEARTBEAT_MS);
	}
}

static uint64_t now_us(void)
{
	return now_ns() / 1000;
}

int main(void)
{
	if (alone()) {
		say("FARM-INIT\n");
		mount_kernel_file_systems();
	}
	read_command_line();
	nonce = parameter("farm.nonce", nonce);
	nonce_word = digest(nonce);
	int exercises_disk = number("farm.disk") > 0, times_disk = number("farm.disk_times") > 0;
	long write_blocks = number("farm.write_blocks"), memory_mib = number("farm.memory_mib");
	if (memory_mib > 0)
		run(tick, NULL);
	load_modules("/modules/network");
	int network = open_network();

	if (exercises_disk || times_disk || write_blocks > 0) {
		load_modules("/modules/disk");
		open_disk();
	}
	uint64_t ready_us = now_us();
	beat(network, 0);
	say("FARM-READY %s %lu %lu\n", nonce, ready_us, now_us());
	if (memory_mib > 0)
		start_memory(memory_mib, number("farm.pages_per_s"));
	if (exercises_disk)
		run(exercise_disk, NULL);
	if (times_disk)
		run(time_disk, (void *)(intptr_t)network);
	if (write_blocks > 0)
		start_write_test(network, write_blocks, number("farm.write_offset"));
	beat_for_ever(network);
}
