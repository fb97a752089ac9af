// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stand-in for the hardware of an inf2.xlarge in the virtual machine of tests/vm: a PCI bus of its own with one device
 * that has the ids of an Inferentia2 chip and nothing behind them. lspci, sysfs and udev see it as any other device.
 */
#include <linux/device.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <asm/pci.h>

static const u8 header[64] = {
	0x0f, 0x1d,		/* vendor: Amazon */
	0x64, 0x72,		/* device: Inferentia2 */
	[0x08] = 0x01,		/* revision */
	[0x0b] = 0x08,		/* class: system peripheral */
};

static int read_configuration(struct pci_bus *bus, unsigned int slot, int where, int size, u32 *value)
{
	int i;

	*value = 0;
	if (slot != 0) {
		*value = ~0;
		return PCIBIOS_DEVICE_NOT_FOUND;
	}
	for (i = 0; i < size; i++)
		if (where + i < sizeof(header))
			*value |= (u32)header[where + i] << (8 * i);
	return PCIBIOS_SUCCESSFUL;
}

static int write_configuration(struct pci_bus *bus, unsigned int slot, int where, int size, u32 value)
{
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops operations = { .read = read_configuration, .write = write_configuration };
static struct pci_sysdata placement = { .domain = 0x1d0f, .node = NUMA_NO_NODE };
static struct resource numbers = { .name = "stand-in hardware", .start = 0, .end = 0, .flags = IORESOURCE_BUS };
static struct device *parent;
static struct pci_bus *bus;

static int __init start(void)
{
	LIST_HEAD(resources);

	parent = root_device_register("stand_in_hardware");
	if (IS_ERR(parent))
		return PTR_ERR(parent);
	pci_add_resource(&resources, &numbers);
	pci_lock_rescan_remove();
	bus = pci_scan_root_bus(parent, 0, &operations, &placement, &resources);
	if (bus)
		pci_bus_add_devices(bus);
	pci_unlock_rescan_remove();
	if (!bus) {
		pci_free_resource_list(&resources);
		root_device_unregister(parent);
		return -ENODEV;
	}
	return 0;
}

/* No exit: hardware stays. */
module_init(start);

MODULE_DESCRIPTION("Stand-in for the hardware of an inf2.xlarge in the neuronops test machine");
MODULE_AUTHOR("neuronops.vllm contributors");
MODULE_LICENSE("GPL");
