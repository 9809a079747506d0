# Kotaro. GNU make, no configure step; everything made goes to build/ (build-san/ with SAN=1, build-fuzz/ with FUZZ=1).
#
#   make            build/kotaro and build/kotaro-run: one program under two names
#   make run        an analysis of examples/scene.jpg
#   make test       all tests that need no GPU; the kernels run in an emulator
#   make test-all   the same with every size of every op       make test-gpu   on a GPU
#   make smollm2    fetches a small text model (98 MB) and asks it five questions
#   make eval-tiny  asks the shipped model about N (40) fresh pictures a set; fails below a floor
#   make bench-load MODEL=DIR [RUNS=5]   process start to ready, in parts, against this machine's ceilings
#   make stress     kotaro-tiny end to end while files, memory, driver or NVRTC fail, a sample
#   make test-san   make test under the address and undefined-behaviour sanitizers
#   make mutate     plants bugs in the kernels and shows which the tests notice: those made by hand (tests/data/mutations.txt)
#                   and COUNT (66) mechanical ones, drawn from SEED (1)
#   make fuzz       every fuzz target for FUZZ_SECONDS (20) each, by clang's libFuzzer
#   make lint       format, tidy, headers, layers, Windows, pipelines       make fmt   formats
#   make dist       dist/kotaro/ and its archive     make nvrtc      NVIDIA's run-time compiler, pinned
#   make resources  tests/data/ops/resources.txt: registers and memory of each kernel
#
# The first build on Debian installs the packages it misses (tools/setup.sh); elsewhere it names them.
# Variables: CC, CFLAGS (added at the end), SAN=1, JOBS, V=1 (show the commands), LIBS (instead of the static ones).
SHELL := /bin/sh
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(MAKELEVEL),0)
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
MAKEFLAGS += -j$(JOBS)
endif

B := $(if $(FUZZ),build-fuzz,$(if $(SAN),build-san,build))
Q := $(if $(V),,@)
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef \
    -Wwrite-strings -Wdouble-promotion -Wformat=2 -Werror
ifneq ($(SAN)$(FUZZ),)
SANITIZE := $(if $(FUZZ),-fsanitize=fuzzer-no-link) -fsanitize=address,undefined -fno-sanitize-recover=undefined \
    -fno-omit-frame-pointer
endif
FLAGS := -std=c11 $(WARN) -g $(SANITIZE) -I.
OPTIMIZE := $(if $(SANITIZE),-O1,-O2)
OPTIMIZE_OPS := $(if $(SANITIZE),-O1,-O3)
STATIC := yaml jansson pcre2-8 utf8proc jpeg png16 z webpdemux webp exif crypto
LIBS := $(STATIC:%=-l:lib%.a)
SYSTEM := -lm -ldl -lpthread

# ---- what there is

COMMANDS := $(wildcard tools/kotaro.c tools/cmd_*.c)
SOURCES := $(wildcard runtime/*.c runtime/*/*.c loader/*.c ptx/*.c) \
    $(filter-out $(COMMANDS) tools/embed.c,$(wildcard tools/*.c))
OPS := $(foreach f,$(wildcard ops/*/*.c),$(if $(filter $(notdir $(f:/$(notdir $(f))=)).c,$(notdir $(f))),$f))
HEADERS := $(wildcard ptx/device/*.cuh)
FABRICATE := $(wildcard tools/fabricate/*.c)
TESTS := $(wildcard tests/test_*.c)
GPU_TESTS := $(wildcard tests/gpu_*.c)
FUZZ_TESTS := $(wildcard tests/fuzz_*.c)
SHARED_TESTS := $(filter-out $(TESTS) $(GPU_TESTS) $(FUZZ_TESTS),$(wildcard tests/*.c))

OBJECTS := $(SOURCES:%.c=$B/%.o) $(OPS:%.c=$B/%.o) $B/gen/cpu_ops.o $B/gen/device_headers.o
COMMAND_OBJECTS := $(COMMANDS:%.c=$B/%.o)
SHARED_OBJECTS := $(SHARED_TESTS:%.c=$B/%.o)
TEST_PROGRAMS := $(TESTS:%.c=$B/%)
GPU_PROGRAMS := $(GPU_TESTS:%.c=$B/%)
FUZZ_PROGRAMS := $(FUZZ_TESTS:%.c=$B/%)
PLAIN_FUZZ := $(FUZZ_TESTS:tests/fuzz_%.c=$B/tests/plain_%)
# It compiles every kernel: NVRTC's time, not ours, and several times as much under the sanitizers.
NOT_WITH_SAN := $(if $(SAN),$B/tests/test_kernels)

# ---- the program

.PHONY: all emu lib tests run test test-all stress test-gpu test-san mutate bench-load eval-tiny smollm2 fuzz fuzz-all lint fmt dist nvrtc resources clean FORCE
all: $B/kotaro-run
lib: $B/libkotaro.a
tests: $(TEST_PROGRAMS) $(GPU_PROGRAMS)

$B/kotaro-run: $B/kotaro
	@ln -f $< $@

$B/kotaro: $(COMMAND_OBJECTS) $B/libkotaro.a
	@echo "  link $@"
	$Q$(CC) $(SANITIZE) -Wl,-z,relro,-z,now -o $@ $^ $(LIBS) $(SYSTEM)

# Checkpoints of the real model's size and form, for tests and measurements; not shipped.
$B/fabricate: $(FABRICATE:%.c=$B/%.o) $B/libkotaro.a
	@echo "  link $@"
	$Q$(CC) $(SANITIZE) -o $@ $^ $(LIBS) $(SYSTEM)

$B/bench_load: $B/tools/bench/load.o $B/libkotaro.a
	@echo "  link $@"
	$Q$(CC) $(SANITIZE) -o $@ $^ $(LIBS) $(SYSTEM)

$B/libkotaro.a: $(OBJECTS)
	@rm -f $@ && ar rcs $@ $^

$B/%.o: %.c | $B/setup
	@mkdir -p $(@D) && echo "  cc $<"
	$Q$(CC) $(FLAGS) $(OPTIMIZE) $(DEFINE) -MMD -MP $(CFLAGS) -c $< -o $@

$B/gen/%.o: $B/gen/%.c | $B/setup
	$Q$(CC) $(FLAGS) $(OPTIMIZE) $(CFLAGS) -c $< -o $@

# Looks at every number that is loaded.
$B/runtime/exec/load_values.o: OPTIMIZE := $(OPTIMIZE_OPS)

# Every op's C file exports kt_cpu_query; inside the program each has a name of its own.
$B/ops/%.o: OPTIMIZE := $(OPTIMIZE_OPS)
$B/ops/%.o: DEFINE = -Dkt_cpu_query=kt_cpu_query_$(*F)

# Generated again on every run, replaced only when different: files come and go.
$B/gen/cpu_ops.c: FORCE
	@tools/gen_cpu_ops.sh $(OPS) | tools/replace.sh $@

$B/gen/device_headers.c: $B/embed $(HEADERS) FORCE
	@$B/embed $(HEADERS) | tools/replace.sh $@

$B/embed: tools/embed.c | $B/setup
	$Q$(CC) $(FLAGS) $(CFLAGS) $< -o $@

$B/setup: tools/setup.sh
	@mkdir -p $B
	@CC="$(CC)" tools/setup.sh build
	@touch $@

# ---- tests

# Stand-ins for the GPU: libcuda with an emulator in it, and NVRTC compiling for the host. tests/emu/emu.h
EMU_DRIVER := $(wildcard tests/emu/*.c tests/emu/core/*.c tests/emu/driver/*.c)
EMU_NVRTC := $(filter-out %/builtins.c,$(wildcard tests/emu/*.c tests/emu/nvrtc/*.c))
EMU_DEVICE := $(wildcard tests/emu/device/*.cuh tests/emu/device/*.h) tests/emu/emu.h
EMU := $B/emu/libcuda.so.1 $B/emu/libnvrtc.so.13 $B/emu/libnvrtc-builtins.so.13.0 $(EMU_DEVICE:tests/emu/%=$B/emu/%)
emu: $(EMU) | $B/setup-test
$B/tests/emu/%.o: FLAGS += -fPIC -D_GNU_SOURCE
$B/tests/emu/core/%.o: OPTIMIZE := $(if $(SANITIZE),-O1,-O3) -march=native
$B/emu/libcuda.so.1: $(EMU_DRIVER:%.c=$B/%.o)
$B/emu/libnvrtc.so.13: $(EMU_NVRTC:%.c=$B/%.o)
$B/emu/libnvrtc-builtins.so.13.0: $B/tests/emu/nvrtc/builtins.o
$B/emu/libcuda.so.1 $B/emu/libnvrtc.so.13 $B/emu/libnvrtc-builtins.so.13.0:
	@mkdir -p $(@D) && echo "  link $@"
	$Q$(CC) $(SANITIZE) -shared -Wl,-soname,$(@F) -o $@ $^ -lm -ldl -lpthread
# The N-th failure loop: the library that makes file calls fail, and the loop. tests/stress.sh
STRESS := $B/emu/libfail_files.so $B/emu/stress
$B/emu/libfail_files.so: tests/stress/fail_files.c
$B/emu/stress: tests/stress/loop.c
$(STRESS): | $B/setup
	@mkdir -p $(@D) && echo "  link $@"
	$Q$(CC) $(filter-out -fsanitize% -fno-sanitize%,$(FLAGS)) -O2 -D_GNU_SOURCE $(if $(filter %.so,$@),-shared -fPIC) -o $@ $< -ldl
stress: all $(EMU) $(STRESS)
	@BUILD=$B tests/stress.sh tiny

$B/emu/%: tests/emu/%
	@mkdir -p $(@D) && cp $< $@

$B/tests/test_emu_driver $B/tests/test_emu_launch: | $(EMU)
# It reads the images, and compiles with the stand-in.
$B/tests/test_emu_nvrtc: $B/tests/emu/image.o | $(EMU)
# It runs modules on the emulator itself: linked, so that they find its functions.
$B/tests/test_emu: $B/tests/emu/image.o $B/emu/libcuda.so.1 | $(EMU)
$B/tests/test_emu: SYSTEM += -Wl,-rpath,'$$ORIGIN/../emu'

.SECONDARY: $(TESTS:%.c=$B/%.o) $(GPU_TESTS:%.c=$B/%.o) $(FUZZ_TESTS:%.c=$B/%.o) $B/tests/fuzz/main.o
$B/tests/fuzz_%: $B/tests/fuzz_%.o $B/tests/fabricate.o $B/libkotaro.a
	@echo "  link $@"
	$Q$(CC) $(SANITIZE) -fsanitize=fuzzer -o $@ $^ $(LIBS) $(SYSTEM)
$B/tests/plain_%: $B/tests/fuzz_%.o $B/tests/fuzz/main.o $B/tests/fabricate.o $B/libkotaro.a
	@echo "  link $@"
	$Q$(CC) $(SANITIZE) -o $@ $^ $(LIBS) $(SYSTEM)
$B/tests/%: $B/tests/%.o $(SHARED_OBJECTS) $B/libkotaro.a
	@echo "  link $@"
	$Q$(CC) $(SANITIZE) -o $@ $^ $(LIBS) -lcmocka $(SYSTEM)
$(TESTS:%.c=$B/%.o) $(GPU_TESTS:%.c=$B/%.o) $(SHARED_OBJECTS): | $B/setup-test

$B/setup-test: tools/setup.sh | $B/setup
	@CC="$(CC)" tools/setup.sh test
	@touch $@

run: all
	$B/kotaro-run pipelines/full.yaml examples/scene.jpg

# What a GPU runs, over the stand-ins; of the op tests a sample of the sizes that have to be compiled, in test-all each.
EMU_TESTS := $B/tests/gpu_ops:1/2 $B/tests/gpu_ops:2/2 $B/tests/gpu_planted $B/tests/gpu_runtime $(wildcard tests/emu/*.sh) \
    $(filter-out %/run.sh,$(wildcard tests/gpu/*.sh))
test: export KOTARO_QUICK := 1
test test-all: all $B/fabricate $(TEST_PROGRAMS) $(GPU_PROGRAMS) $(PLAIN_FUZZ) $(EMU) $(STRESS)
	@tools/fetch_nvrtc.sh --pinned || tools/fetch_nvrtc.sh || echo "tests that need NVRTC will fail"
	@BUILD=$B $(if $(SAN),KOTARO_EMU=asan) TEST_SECONDS=$${TEST_SECONDS:-$(if $(SAN)$(filter test-all,$@),7200,1800)} \
	    tests/run.sh $(filter-out %/test_kernels,$(TEST_PROGRAMS)) $(wildcard tests/*_test.sh) \
	    --beside $(filter-out $(NOT_WITH_SAN),$B/tests/test_kernels) --emu $(EMU_TESTS) $(if $(filter test-all,$@),$B/tests/gpu_pixels)

test-gpu: all $(GPU_PROGRAMS) $B/tests/test_text
	@BUILD=$B tests/run.sh --gpu $(GPU_PROGRAMS) $(wildcard tests/gpu/*.sh)

test-san:
	$(MAKE) SAN=1 test

mutate: $(EMU) $B/tests/gpu_ops
	@BUILD=$B tests/mutate.py --seed $(or $(SEED),1) --count $(or $(COUNT),66)

smollm2: all
	@BUILD=$B tools/smollm2.sh

bench-load: all $B/bench_load
	@BUILD=$B tools/bench_load.sh "$(MODEL)" $(or $(RUNS),5)

eval-tiny: all
	tools/eval_tiny.sh $(N)

fuzz:
	@tools/setup.sh fuzz
	$(MAKE) FUZZ=1 CC=clang-14 CFLAGS="$(CFLAGS) -Wno-error" fuzz-all
fuzz-all: $(FUZZ_PROGRAMS)
	@BUILD=$B tests/fuzz.sh $(FUZZ_PROGRAMS)

# ---- the rest

lint: all
	@tools/setup.sh lint
	@FLAGS="$(FLAGS)" JOBS="$(JOBS)" tools/lint.sh

fmt:
	@tools/setup.sh lint
	clang-format-14 -i $$(tools/files.sh c)

nvrtc:
	@tools/fetch_nvrtc.sh --pinned

# What kernels use, as the pinned NVRTC compiles them. Look at the difference before it is committed.
resources: build/tests/test_kernels nvrtc
	@KOTARO_NVRTC=build/nvrtc KOTARO_CACHE_DIR=$$PWD/build/test-cache RESOURCES=write build/tests/test_kernels

dist: all $B/fabricate nvrtc
	tools/dist.sh

clean:
	rm -rf build build-san build-fuzz build-cov dist

-include $(OBJECTS:.o=.d) $(FABRICATE:%.c=$B/%.d) $(COMMAND_OBJECTS:.o=.d) $(SHARED_OBJECTS:.o=.d) \
    $(EMU_DRIVER:%.c=$B/%.d) $(EMU_NVRTC:%.c=$B/%.d) $B/tools/bench/load.d $B/tests/fuzz/main.d $(TESTS:%.c=$B/%.d) $(GPU_TESTS:%.c=$B/%.d) $(FUZZ_TESTS:%.c=$B/%.d)
