# Objects of the datapath; included by the top-level Makefile. `make bpf` builds build/bpf/*.bpf.o.
CLANG ?= clang
LLVM_STRIP ?= llvm-strip
BPF_DIRECTORY := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
BPF_BUILD := build/bpf
BPF_OBJECTS := $(patsubst $(BPF_DIRECTORY)/%.bpf.c,$(BPF_BUILD)/%.bpf.o,$(wildcard $(BPF_DIRECTORY)/*.bpf.c))
# Kernel headers include <asm/...>, which Debian keeps in the directory of the machine's own architecture.
BPF_ARCHITECTURE = $(shell $(CLANG) -print-multiarch 2>/dev/null)
BPF_CFLAGS = -O2 -g -target bpf -mcpu=v3 -std=gnu11 -Wall -Wextra -Werror \
	$(if $(BPF_ARCHITECTURE),-idirafter /usr/include/$(BPF_ARCHITECTURE))

.PHONY: bpf
bpf: $(BPF_OBJECTS)

# Debug sections go, .BTF and .BTF.ext stay: -g strips DWARF alone.
$(BPF_BUILD)/%.bpf.o: $(BPF_DIRECTORY)/%.bpf.c $(BPF_DIRECTORY)/build.mk
	@mkdir -p $(@D)
	$(CLANG) $(BPF_CFLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c $< -o $@.tmp
	$(LLVM_STRIP) -g $@.tmp
	mv $@.tmp $@

-include $(BPF_OBJECTS:.o=.d)
