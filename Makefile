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
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/cluster/*.c src/engine/*.c))) $(CORE_OBJS)

# Of -Wextra, three warnings do not fit the server's own idioms: functions of
# a fixed signature leave arguments unused, its macros compare int with Size,
# and structs are initialised by their first members.
PG_CPPFLAGS = -Isrc -I$(libpq_srcdir)
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers $(WERROR)

# "make WERROR=" builds with a compiler that warns of more than ours do
WERROR = -Werror

# libpq: connections to other nodes
SHLIB_LINK = -lm $(libpq)

# Coordination services: libraries of their own, so that their clients are
# loaded by nobody but the broker.  Built if the client's header is there.
hash := \#
has_header = $(shell printf '$(hash)include <%s>\n' $(1) | $(CC) $(CPPFLAGS) -E - >/dev/null 2>&1 && echo yes)
PROVIDERS = $(if $(call has_header,zookeeper/zookeeper.h),zookeeper) \
	$(if $(call has_header,hiredis/hiredis.h),redis)
provider_objs = $(patsubst %.c,%.o,$(sort $(wildcard src/provider/$(1)*.c)))
PROVIDER_OBJS = $(foreach p,$(PROVIDERS),$(call provider_objs,$(p)))
PROVIDER_LIBS = $(foreach p,$(strip $(PROVIDERS)),risk_alert_$(p)$(DLSUFFIX))

# All tests share one database that has the extension
REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --outputdir=test --load-extension=risk_alert
ISOLATION = $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --outputdir=test/isolation --load-extension=risk_alert

EXTRA_CLEAN = $(addprefix test/,results regression.diffs regression.out output_iso \
	isolation/output_iso isolation/results tmp_check test_output) \
	$(wildcard src/provider/*.o risk_alert_*$(DLSUFFIX))

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifeq (,$(PGXS))
$(error $(PG_CONFIG) not found: install PostgreSQL's server development files (Debian: postgresql-server-dev-15 and libpq-dev, or run test/install-deps), or set PG_CONFIG)
endif

# Bitcode needs the very clang that the server was built with; do without if it
# is not installed.
pgxs_clang := $(shell sed -n 's/^CLANG *= *//p' '$(dir $(PGXS))../Makefile.global')
ifeq (,$(shell command -v $(firstword $(pgxs_clang) none) 2>/dev/null))
override with_llvm = no
endif

include $(PGXS)

# The server was configured for gcc: clang need not know all those options, nor
# the attributes in the server's headers
ifneq (,$(findstring clang,$(shell $(CC) --version 2>/dev/null)))
override CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument \
	-Wno-ignored-attributes
endif

$(CORE_OBJS): override CFLAGS += $(CFLAGS_VECTORIZE)

# PGXS tracks no headers
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*.h src/cluster/*.h src/core/*.h src/engine/*.h)

all: $(PROVIDER_LIBS)

# Whether the services' clients have TLS (Debian 12's have not): a program that calls it
# must compile and link.  That is tried when it is first asked for, by the first object to
# be built; from then on the variable has the answer.
links = $(shell printf '$(hash)include <%s>\n' $(1) | sed '$$a int main(void) { return ($(2)) != 0; }' | \
	$(CC) $(CPPFLAGS) -DTHREADED -x c - -o /dev/null $(LDFLAGS) $(3) >/dev/null 2>&1 && echo yes)
zookeeper_tls = $(eval zookeeper_tls := $(call links,zookeeper/zookeeper.h openssl/ssl.h,\
	TLS_client_method() && zookeeper_init_ssl("","",0,0,0,0,0),-DHAVE_OPENSSL_H $(zookeeper_tls_libs)))$(zookeeper_tls)
zookeeper_tls_libs = -lzookeeper_mt -lssl -lcrypto
redis_tls = $(eval redis_tls := $(call links,hiredis/hiredis.h hiredis/hiredis_ssl.h openssl/ssl.h,\
	TLS_client_method() && redisInitiateSSL(0,0),$(redis_tls_libs)))$(redis_tls)
redis_tls_libs = -lhiredis_ssl -lhiredis -lssl -lcrypto

$(PROVIDER_OBJS): $(wildcard src/provider/*.h)
$(PROVIDER_OBJS): override CFLAGS += -DTHREADED
$(call provider_objs,zookeeper): override CFLAGS += $(if $(zookeeper_tls),-DRA_ZOOKEEPER_TLS)
$(call provider_objs,redis): override CFLAGS += $(if $(redis_tls),-DRA_REDIS_TLS)

risk_alert_zookeeper$(DLSUFFIX): $(call provider_objs,zookeeper)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDFLAGS_SL) -shared -o $@ $(if $(zookeeper_tls),$(zookeeper_tls_libs),-lzookeeper_mt)

risk_alert_redis$(DLSUFFIX): $(call provider_objs,redis)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDFLAGS_SL) -shared -o $@ $(if $(redis_tls),$(redis_tls_libs),-lhiredis)

install: install-providers
install-providers: $(PROVIDER_LIBS)
ifneq (,$(strip $(PROVIDERS)))
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)'
	$(INSTALL_SHLIB) $^ '$(DESTDIR)$(pkglibdir)/'
endif

uninstall: uninstall-providers
uninstall-providers:
	rm -f $(addprefix '$(DESTDIR)$(pkglibdir)'/,risk_alert_zookeeper$(DLSUFFIX) risk_alert_redis$(DLSUFFIX))

.PHONY: install-providers uninstall-providers

# ASCII only: the script is read in the encoding of each database
sql/risk_alert--0.1.sql: $(sort $(wildcard sql/install/*.sql))
	@! LC_ALL=C grep -n '[^ -~	]' $^
	{ printf '%s\n' '\echo Use "CREATE EXTENSION risk_alert" to load this file. \quit'; cat $^; } > $@.tmp
	mv $@.tmp $@

endif
