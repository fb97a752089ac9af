// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The sandbox's stand-in for AWS's Neuron driver. It has the real one's name, version, device files, sysfs attributes
 * and kernel log line, and drives nothing: opening a device only keeps the module from being unloaded.
 *
 * Devices are counted on the PCI bus, as the real driver does. Where there is no Neuron hardware, as in a virtual
 * machine, `options neuron devices=1 family=inf2 instance_type=inf2.xlarge` in /etc/modprobe.d says what to pretend.
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "release.h"

#if LINUX_VERSION_CODE >= NEURON_FIRST_KERNEL_WITHOUT_SUPPORT
#error "this release of the driver is older than the kernel: its real counterpart does not compile either"
#endif

#define NEURON_MAX_DEVICES 64
#define NEURON_CORES_PER_DEVICE 2

static int devices = -1;
module_param(devices, int, 0444);
MODULE_PARM_DESC(devices, "Number of devices to pretend; -1 (default) counts the Neuron devices on the PCI bus");

static char *family = "";
module_param(family, charp, 0444);
MODULE_PARM_DESC(family, "Instance family to pretend: inf1, inf2, trn1 or trn2; the PCI bus says it when this is empty");

static char *instance_type = "";
module_param(instance_type, charp, 0444);
MODULE_PARM_DESC(instance_type, "Instance type to pretend, such as inf2.xlarge");

static const struct pci_device_id neuron_pci_ids[] = {
	{ PCI_DEVICE(0x1d0f, 0x7064) }, { PCI_DEVICE(0x1d0f, 0x7065) },
	{ PCI_DEVICE(0x1d0f, 0x7066) }, { PCI_DEVICE(0x1d0f, 0x7067) },
	{ PCI_DEVICE(0x1d0f, 0x7164) }, { PCI_DEVICE(0x1d0f, 0x7264) },
	{ PCI_DEVICE(0x1d0f, 0x7364) }, { 0 },
};
MODULE_DEVICE_TABLE(pci, neuron_pci_ids);

static dev_t first_number;
static struct cdev device_files;
static struct class *neuron_class;
static struct device *neuron_devices[NEURON_MAX_DEVICES];
static struct kobject *info[NEURON_MAX_DEVICES], *architecture[NEURON_MAX_DEVICES];

/* The module stays while a file is open: the kernel counts through .owner. */
static const struct file_operations neuron_operations = {
	.owner = THIS_MODULE,
};

static ssize_t core_count_show(struct device *device, struct device_attribute *attribute, char *buffer)
{
	return scnprintf(buffer, PAGE_SIZE, "%d\n", NEURON_CORES_PER_DEVICE);
}
static struct device_attribute core_count = __ATTR(core_count, NEURON_SYSFS_MODE, core_count_show, NULL);

/* Sixteen devices form a 4x4 torus (known); fewer form a ring (assumed). */
static ssize_t connected_devices_show(struct device *device, struct device_attribute *attribute, char *buffer)
{
	int i = MINOR(device->devt) - MINOR(first_number);

	if (devices == 16)
		return scnprintf(buffer, PAGE_SIZE, "%d, %d, %d, %d\n", (i + 12) % 16, i / 4 * 4 + (i + 3) % 4,
				 (i + 4) % 16, i / 4 * 4 + (i + 1) % 4);
	if (devices > 2)
		return scnprintf(buffer, PAGE_SIZE, "%d, %d\n", (i + devices - 1) % devices, (i + 1) % devices);
	if (devices == 2)
		return scnprintf(buffer, PAGE_SIZE, "%d\n", 1 - i);
	return scnprintf(buffer, PAGE_SIZE, "\n");
}
static struct device_attribute connected_devices =
	__ATTR(connected_devices, NEURON_SYSFS_MODE, connected_devices_show, NULL);

static struct attribute *neuron_attrs[] = { &core_count.attr, &connected_devices.attr, NULL };
ATTRIBUTE_GROUPS(neuron);

static ssize_t arch_type_show(struct kobject *object, struct kobj_attribute *attribute, char *buffer)
{
	const char *type = !strcmp(family, "trn2") ? "NCv3" : !strcmp(family, "inf1") ? "NCv1" : "NCv2";

	return scnprintf(buffer, PAGE_SIZE, "%s\n", type);
}
static ssize_t device_name_show(struct kobject *object, struct kobj_attribute *attribute, char *buffer)
{
	const char *name = !strcmp(family, "trn1") ? "Trainium1" : !strcmp(family, "trn2") ? "Trainium2" :
			   !strcmp(family, "inf1") ? "Inferentia" : "Inferentia2";

	return scnprintf(buffer, PAGE_SIZE, "%s\n", name);
}
static ssize_t instance_type_show(struct kobject *object, struct kobj_attribute *attribute, char *buffer)
{
	return scnprintf(buffer, PAGE_SIZE, "%s\n", instance_type);
}
static struct kobj_attribute arch_type = __ATTR(arch_type, 0444, arch_type_show, NULL);
static struct kobj_attribute device_name = __ATTR(device_name, 0444, device_name_show, NULL);
static struct kobj_attribute instance_type_file = __ATTR(instance_type, 0444, instance_type_show, NULL);
static const struct attribute *architecture_attributes[] = {
	&arch_type.attr, &device_name.attr, &instance_type_file.attr, NULL,
};

static void look_at_the_bus(void)
{
	struct pci_dev *pci = NULL;
	int found = 0;

	for_each_pci_dev(pci) {
		const struct pci_device_id *id = pci_match_id(neuron_pci_ids, pci);

		if (!id)
			continue;
		found++;
		if (!*family)
			family = id->device == 0x7164 ? "trn1" : id->device == 0x7264 ? "inf2" :
				 id->device == 0x7364 ? "trn2" : "inf1";
	}
	if (devices < 0)
		devices = found;
	devices = min(devices, NEURON_MAX_DEVICES);
}

static void remove_devices(void)
{
	int i;

	for (i = 0; i < devices; i++) {
		kobject_put(architecture[i]);
		kobject_put(info[i]);
		if (!IS_ERR_OR_NULL(neuron_devices[i]))
			device_destroy(neuron_class, first_number + i);
	}
}

static int add_device(int i)
{
	neuron_devices[i] = device_create_with_groups(neuron_class, NULL, first_number + i, NULL, neuron_groups,
						      "neuron%d", i);
	if (IS_ERR(neuron_devices[i]))
		return PTR_ERR(neuron_devices[i]);
	info[i] = kobject_create_and_add("info", &neuron_devices[i]->kobj);
	if (!info[i])
		return -ENOMEM;
	architecture[i] = kobject_create_and_add("architecture", info[i]);
	if (!architecture[i])
		return -ENOMEM;
	return sysfs_create_files(architecture[i], architecture_attributes);
}

static int __init neuron_start(void)
{
	int i, error;

	pr_info("Neuron Driver Started with Version:%s-%s\n", NEURON_VERSION, NEURON_BUILD);
	look_at_the_bus();
	error = alloc_chrdev_region(&first_number, 0, NEURON_MAX_DEVICES, "neuron");
	if (error)
		return error;
	cdev_init(&device_files, &neuron_operations);
	error = cdev_add(&device_files, first_number, NEURON_MAX_DEVICES);
	if (error)
		goto no_files;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	neuron_class = class_create("neuron_device");
#else
	neuron_class = class_create(THIS_MODULE, "neuron_device");
#endif
	if (IS_ERR(neuron_class)) {
		error = PTR_ERR(neuron_class);
		goto no_class;
	}
	for (i = 0; i < devices && !error; i++)
		error = add_device(i);
	if (!error)
		return 0;
	remove_devices();
	class_destroy(neuron_class);
no_class:
	cdev_del(&device_files);
no_files:
	unregister_chrdev_region(first_number, NEURON_MAX_DEVICES);
	return error;
}

static void __exit neuron_stop(void)
{
	remove_devices();
	class_destroy(neuron_class);
	cdev_del(&device_files);
	unregister_chrdev_region(first_number, NEURON_MAX_DEVICES);
}

module_init(neuron_start);
module_exit(neuron_stop);

MODULE_DESCRIPTION("The sandbox's stand-in for the AWS Neuron driver");
MODULE_AUTHOR("neuronops.vllm contributors");
MODULE_LICENSE("GPL");
MODULE_VERSION(NEURON_VERSION);
