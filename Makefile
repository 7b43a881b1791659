# risk_alert: built by PostgreSQL's extension build system (PGXS).
#
#   make, make install, make installcheck    as for any extension
#   make check                               builds and tests everything
#   make demo, make bench                    see demo/ and bench/
#
# check, demo and bench install what they need on Debian (test/install-deps)
# and work before PostgreSQL's build files are there; so they do without PGXS.

STANDALONE = check demo bench

ifneq (,$(filter $(STANDALONE),$(MAKECMDGOALS)))

.PHONY: $(MAKECMDGOALS)

check:
	test/run $(SUITES)

demo:
	demo/run

bench:
	bench/run

# other goals of the same command line
$(filter-out $(STANDALONE),$(MAKECMDGOALS)):
	$(MAKE) $@

else

EXTENSION = risk_alert
MODULE_big = risk_alert
DATA_built = sql/risk_alert--0.1.sql
PGFILEDESC = "risk_alert - real-time risk control"

CORE_OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/core/*.c)))
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/engine/*.c))) $(CORE_OBJS)

# Of -Wextra, three warnings do not fit the server's own idioms: functions of
# a fixed signature leave arguments unused, its macros compare int with Size,
# and structs are initialised by their first members.
PG_CPPFLAGS = -Isrc
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers $(WERROR)

# "make WERROR=" builds with a compiler that warns of more than ours do
WERROR = -Werror

# libm
SHLIB_LINK = -lm

# All tests share one database that has the extension
REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --outputdir=test --load-extension=risk_alert
ISOLATION = $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --outputdir=test/isolation --load-extension=risk_alert

EXTRA_CLEAN = $(addprefix test/,results regression.diffs regression.out output_iso \
	isolation/output_iso isolation/results tmp_check test_output)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifeq (,$(PGXS))
$(error $(PG_CONFIG) not found: install PostgreSQL's server development files (Debian: postgresql-server-dev-15, or run test/install-deps), or set PG_CONFIG)
endif

# Bitcode needs the very clang that the server was built with; do without if it
# is not installed.
pgxs_clang := $(shell sed -n 's/^CLANG *= *//p' '$(dir $(PGXS))../Makefile.global')
ifeq (,$(shell command -v $(firstword $(pgxs_clang) none) 2>/dev/null))
override with_llvm = no
endif

# Providers are libraries of their own: only the broker loads one, with its client
zookeeper_header := $(shell echo '\#include <zookeeper/zookeeper.h>' | $(CC) -E - >/dev/null 2>&1 && echo yes)
ZOOKEEPER_OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/provider/zookeeper*.c)))
EXTRA_CLEAN += risk_alert_zookeeper.so $(ZOOKEEPER_OBJS)

include $(PGXS)

ifeq (yes,$(zookeeper_header))
all: risk_alert_zookeeper.so

install: install-zookeeper

.PHONY: install-zookeeper
install-zookeeper: risk_alert_zookeeper.so
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_SHLIB) $< '$(DESTDIR)$(pkglibdir)/'
else
$(info no zookeeper/zookeeper.h (Debian: libzookeeper-mt-dev): building without ZooKeeper)
endif

$(ZOOKEEPER_OBJS): override CFLAGS += $(CFLAGS_SL) -fvisibility=hidden
$(ZOOKEEPER_OBJS): override CPPFLAGS += -DTHREADED
$(ZOOKEEPER_OBJS): $(wildcard src/provider/*.h)

risk_alert_zookeeper.so: $(ZOOKEEPER_OBJS)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDFLAGS_SL) -shared -o $@ -lzookeeper_mt

# The server was configured for gcc: clang need not know all those options, nor
# the attributes in the server's headers
ifneq (,$(findstring clang,$(shell $(CC) --version 2>/dev/null)))
override CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument \
	-Wno-ignored-attributes
endif

$(CORE_OBJS): override CFLAGS += $(CFLAGS_VECTORIZE)

# PGXS tracks no headers
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h src/core/*.h src/engine/*.h)

# ASCII only: the script is read in the encoding of each database
sql/risk_alert--0.1.sql: $(sort $(wildcard sql/install/*.sql))
	@! LC_ALL=C grep -n '[^ -~	]' $^
	{ printf '%s\n' '\echo Use "CREATE EXTENSION risk_alert" to load this file. \quit'; cat $^; } > $@.tmp
	mv $@.tmp $@

endif
